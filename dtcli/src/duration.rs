//! Durations on the command line.

use std::time::Duration;

/// A century: as good as unlimited, and sums with it cannot overflow.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Parses a duration: `90` and `0.5` are seconds, `1m30s` has units.
///
/// # Errors
/// A message with the valid forms.
pub fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let duration = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => humantime::parse_duration(text).ok(),
    };
    duration
        .filter(|duration| *duration <= LONGEST)
        .ok_or_else(|| "must be a duration such as 30, 500ms or 1m30s".to_owned())
}

/// As [`duration`], but longer than 0.
///
/// # Errors
/// A message with the valid forms.
pub fn timeout(text: &str) -> Result<Duration, String> {
    let duration = duration(text)?;
    if duration.is_zero() { Err("must be longer than 0".to_owned()) } else { Ok(duration) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_seconds_or_have_units() {
        for (text, expected) in
            [("30", 30_000), (" 0.5 ", 500), ("500ms", 500), ("1m30s", 90_000), ("1m 30s", 90_000), ("0", 0)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(expected)), "{text}");
        }
        for text in ["", "-1", "nan", "inf", "1e99", "9999999999y", "soon"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(timeout("0").is_err());
    }
}
