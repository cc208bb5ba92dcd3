//! One line of the log: typed fields, as logfmt or as a JSON object.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::args::LogFormat;

/// How important a line is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Level {
    Error,
    Warn,
    Info,
    Debug,
}

/// A line of the log.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) level: Level,
    /// In the order of the line.
    fields: Vec<(&'static str, Value)>,
}

impl Record {
    /// A line about an event of this name; its words are the message for people.
    pub(crate) fn new(level: Level, event: &'static str) -> Self {
        let name = match level {
            Level::Error => "ERROR",
            Level::Warn => "WARN",
            Level::Info => "INFO",
            Level::Debug => "DEBUG",
        };
        let record = Self { level, fields: Vec::new() };
        let record =
            record.with("timestamp", humantime::format_rfc3339_millis(SystemTime::now()).to_string());
        record.with("level", name).with("message", event.replace('_', " ")).with("event", event)
    }

    pub(crate) fn with(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        self.fields.push((key, value.into()));
        self
    }

    /// An address; one of IPv4 as that, also on a socket for both.
    pub(crate) fn peer(self, peer: SocketAddr) -> Self {
        self.with("peer", SocketAddr::new(peer.ip().to_canonical(), peer.port()).to_string())
    }

    pub(crate) fn path(self, path: &Path) -> Self {
        self.with("path", shortened(path))
    }

    /// How many bytes were sent in how many seconds, and how many in each.
    pub(crate) fn amount(self, bytes: u64, elapsed: Duration) -> Self {
        let rate = u128::from(bytes) * 1_000_000 / elapsed.as_micros().max(1);
        // In whole milliseconds: smaller numbers would be written with an exponent.
        let seconds = (elapsed.as_secs_f64() * 1000.0).round() / 1000.0;
        self.with("bytes", bytes)
            .with("seconds", seconds)
            .with("rate", u64::try_from(rate).unwrap_or(u64::MAX))
    }

    /// The line, without its end.
    pub(crate) fn line(&self, format: LogFormat) -> String {
        let fields = self.fields.iter();
        match format {
            LogFormat::Json => {
                let fields = fields.map(|(key, value)| format!("\"{key}\":{value}"));
                format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
            }
            LogFormat::Text => {
                let fields = fields.map(|(key, value)| format!("{key}={}", logfmt(value)));
                fields.collect::<Vec<_>>().join(" ")
            }
        }
    }
}

/// How many bytes of a name are written: a request may hold 16 KiB, and a log is for people.
const LONGEST_NAME: usize = 1024;

fn shortened(path: &Path) -> String {
    let bytes = path.as_os_str().as_bytes();
    match bytes.get(..LONGEST_NAME) {
        Some(beginning) if beginning.len() < bytes.len() => {
            format!("{}...", OsStr::from_bytes(beginning).to_string_lossy())
        }
        Some(_) | None => path.to_string_lossy().into_owned(),
    }
}

/// A value as logfmt has it: in quotes, with JSON's escapes, unless it is one plain word.
fn logfmt(value: &Value) -> String {
    let is_plain = |text: &str| {
        !text.is_empty()
            && text.chars().all(|c| !c.is_whitespace() && !c.is_control() && !"\"=\\".contains(c))
    };
    match value {
        Value::String(text) if is_plain(text) => text.clone(),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(record: &Record, format: LogFormat) -> String {
        // Without the time.
        record.line(format).replacen(record.fields[0].1.as_str().unwrap(), "T", 1)
    }

    #[test]
    fn line_is_logfmt_or_json_with_types() {
        let record = Record::new(Level::Info, "transfer_finished")
            .peer("[::ffff:10.0.0.1]:5".parse().unwrap())
            .path(Path::new("a b\"=\n\u{1b}ü"))
            .amount(20_000_000, Duration::from_micros(1_500_000))
            .with("empty", "");
        assert_eq!(
            line(&record, LogFormat::Text),
            "timestamp=T level=INFO message=\"transfer finished\" event=transfer_finished peer=10.0.0.1:5 \
             path=\"a b\\\"=\\n\\u001bü\" bytes=20000000 seconds=1.5 rate=13333333 empty=\"\""
        );
        let value: Value = serde_json::from_str(&line(&record, LogFormat::Json)).unwrap();
        assert_eq!((value["bytes"].as_u64(), value["seconds"].as_f64()), (Some(20_000_000), Some(1.5)));
        assert_eq!(value["path"], "a b\"=\n\u{1b}ü");
    }

    #[test]
    fn no_number_has_an_exponent() {
        for nanos in [0, 1, 999, 21_392, 499_999, 500_000, 1_234_567_890, 10_u64.pow(18)] {
            let record = Record::new(Level::Info, "x").amount(1, Duration::from_nanos(nanos));
            for format in [LogFormat::Text, LogFormat::Json] {
                let line = line(&record, format);
                let seconds = line.split("seconds").nth(1).unwrap();
                assert!(!seconds.split(['r', ',']).next().unwrap().contains(['e', 'E']), "{line}");
            }
        }
    }

    #[test]
    fn long_name_is_cut() {
        for (len, expected) in [(1, 1), (1024, 1024), (1025, 1027), (16 << 10, 1027)] {
            assert_eq!(shortened(Path::new(&"x".repeat(len))).len(), expected, "{len}");
        }
        // In the middle of a character.
        assert!(shortened(Path::new(&format!("x{}", "ü".repeat(800)))).ends_with("\u{fffd}..."));
    }
}
