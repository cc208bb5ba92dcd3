//! The events of `dtclient --json`, line by line.

use serde_json::Value;

use crate::process::Outcome;

/// The events of one run, in order.
#[derive(Clone, Debug)]
pub struct Events {
    all: Vec<Value>,
}

impl Events {
    /// Reads the standard output of a run that has ended, held to the grammar of events.
    #[track_caller]
    pub fn of(outcome: &Outcome) -> Self {
        let events = Self::so_far(&outcome.stdout);
        let ends = events.all.iter().filter(|event| is_end(event)).count();
        assert_eq!(ends, 1, "one end expected: {outcome}");
        assert!(events.all.last().is_some_and(is_end), "the end is not last: {outcome}");
        // A directory of which a part has failed is finished too, with an exit code.
        let end = events.all.last().map(|end| &end["exit"]);
        let code = end.filter(|exit| !exit.is_null()).map_or(Some(0), Value::as_i64);
        assert_eq!(outcome.code.map(i64::from), code, "the exit code in the events: {outcome}");
        events
    }

    /// Reads what a run has printed so far; a line that is not complete yet is left out.
    #[track_caller]
    pub fn so_far(stdout: &[u8]) -> Self {
        let text = String::from_utf8(stdout.to_vec()).expect("events are UTF-8");
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let all: Vec<Value> = whole
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}")))
            .collect();
        for event in &all {
            assert_eq!(event["v"], 1, "{event}");
            assert!(event["event"].is_string(), "{event}");
        }
        Self { all }
    }

    /// All events with that name.
    pub fn named(&self, name: &str) -> Vec<&Value> {
        self.all.iter().filter(|event| event["event"] == name).collect()
    }

    /// How many there are.
    pub fn count(&self, name: &str) -> usize {
        self.named(name).len()
    }

    /// The last one.
    pub fn last(&self, name: &str) -> Option<&Value> {
        self.all.iter().rfind(|event| event["event"] == name)
    }

    /// The names of all events, in order.
    pub fn names(&self) -> Vec<&str> {
        self.all.iter().filter_map(|event| event["event"].as_str()).collect()
    }

    /// The only one with that name, with at least these keys.
    #[track_caller]
    pub fn only(&self, name: &str, keys: &[&str]) -> &Value {
        let [event] = self.named(name)[..] else { panic!("one {name} expected: {:?}", self.all) };
        for key in keys {
            assert!(event.get(key).is_some(), "{key} is missing in {event}");
        }
        event
    }

    /// The end of a transfer that succeeded.
    #[track_caller]
    pub fn finished(&self) -> &Value {
        self.only(
            "finished",
            &[
                "output",
                "protocol",
                "bytes",
                "received",
                "resumed",
                "seconds",
                "blake3",
                "md5",
                "retries",
                "repaired_blocks",
                "wasted_bytes",
                "streams_lost",
            ],
        )
    }
}

fn is_end(event: &Value) -> bool {
    event["event"] == "finished" || event["event"] == "failed"
}

/// A whole number in an event.
#[track_caller]
pub fn number(event: &Value, key: &str) -> u64 {
    event[key].as_u64().unwrap_or_else(|| panic!("{key} is no whole number in {event}"))
}
