//! The words of events that are shown once.

use std::time::Duration;

use dtcli::one_line;
use dtcore::{Event, Outage};

use crate::progress_line::retrying;
use crate::units::{bytes, count};

/// The text of an event that is shown once, unless only errors are printed.
#[expect(clippy::wildcard_enum_match_arm, reason = "all others are no notices")]
pub(crate) fn notice(event: &Event) -> Option<String> {
    match event {
        Event::StartedOver { reason, .. } => Some(format!("starting over: {reason}")),
        Event::Grown { delivered, .. } => Some(format!(
            "the file has grown meanwhile: its first {} are delivered, as many as it had at the start",
            count(*delivered, "byte")
        )),
        Event::InPlace { .. } => Some(
            "the output is a mount point: it is written in place at the end, not replaced in one step"
                .to_owned(),
        ),
        Event::Resumable { bytes: n, .. } => Some(format!("{} saved", bytes(*n))),
        Event::StreamsReduced { streams, requested, .. } => {
            Some(format!("using {streams} of {requested} streams: no more files may be open (ulimit -n)"))
        }
        _ => None,
    }
}

/// `host:9000 refused the request (503): busy; retrying (1 of 10) in 0.4 s`
pub(crate) fn retrying_in(outage: Outage, pause: Duration, reason: &str) -> String {
    let pause = format!("{:.1}", pause.as_secs_f64());
    format!("{}; {} in {} s", one_line(reason), retrying(outage), pause.trim_end_matches(".0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pause_before_an_attempt_is_shown() {
        let mut outage = Outage::default();
        (outage.attempt, outage.limit) = (1, Some(10));
        for (pause, shown) in [(400, "0.4"), (7000, "7")] {
            let text = retrying_in(outage, Duration::from_millis(pause), "h:1 is busy");
            assert_eq!(text, format!("h:1 is busy; retrying (1 of 10) in {shown} s"));
        }
    }
}
