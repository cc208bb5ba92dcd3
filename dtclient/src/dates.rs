//! Times, for people and for programs.

use std::time::{SystemTime, UNIX_EPOCH};

/// The time in UTC.
pub(crate) fn date(time: SystemTime) -> String {
    // What this cannot format is no date that a file has.
    let is_date = time.duration_since(UNIX_EPOCH).is_ok_and(|since| since.as_secs() < 253_402_300_800);
    if is_date {
        humantime::format_rfc3339_seconds(time).to_string()
    } else {
        format!("{} s after 1970", seconds(time))
    }
}

/// Seconds since 1970.
pub(crate) fn seconds(time: SystemTime) -> f64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_secs_f64(),
        Err(before) => -before.duration().as_secs_f64(),
    }
}
