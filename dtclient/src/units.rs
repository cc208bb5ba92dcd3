//! Numbers for people: sizes, rates, percentages and times.

use std::time::Duration;

/// A number of things: `1 byte`, `2 bytes`.
pub(crate) fn count(n: u64, thing: &str) -> String {
    if n == 1 { format!("1 {thing}") } else { format!("{n} {thing}s") }
}

/// How many percent `part` is of `whole`, rounded down.
pub(crate) fn percent(part: u64, whole: u64) -> u64 {
    let percent = u128::from(part) * 100 / u128::from(whole.max(1));
    u64::try_from(percent).unwrap_or(100)
}

/// Minutes and seconds, with hours before them if there are any.
pub(crate) fn eta(left: u64, rate: f64) -> String {
    let Ok(left) = Duration::try_from_secs_f64(float(left) / rate) else { return "-:--".to_owned() };
    let seconds = left.as_secs();
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    if hours > 999 {
        "-:--".to_owned()
    } else if hours > 0 {
        format!("{hours}:{minutes:02}:{:02}", seconds % 60)
    } else {
        format!("{minutes}:{:02}", seconds % 60)
    }
}

/// A size with its unit.
pub(crate) fn bytes(n: u64) -> String {
    if n < 1024 { format!("{n} B") } else { bytes_float(float(n)) }
}

/// A number of bytes, and how much that is where it says more: `12 bytes`, `2048 bytes (2.00 KiB)`.
pub(crate) fn size(n: u64) -> String {
    let exact = count(n, "byte");
    if n < 1024 { exact } else { format!("{exact} ({})", bytes(n)) }
}

/// The rate of so many bytes in so many seconds, after a comma; of nothing there is none.
pub(crate) fn and_rate(n: u64, seconds: f64) -> String {
    match float(n) / seconds {
        rate if rate >= 1.0 && rate.is_finite() => format!(", {}", per_second(rate)),
        _ => String::new(),
    }
}

/// A rate with its unit.
pub(crate) fn per_second(bytes_per_second: f64) -> String {
    format!("{}/s", bytes_float(bytes_per_second))
}

fn bytes_float(n: f64) -> String {
    let (divisor, unit) = unit(n);
    format!("{:.2} {unit}", n / divisor)
}

/// The unit in which `n` bytes are at least 1, if there is one, and less than 1024 as they are shown.
pub(crate) fn unit(n: f64) -> (f64, &'static str) {
    let mut divisor = 1.0;
    for unit in ["B", "KiB", "MiB", "GiB", "TiB", "PiB"] {
        if n < divisor * 1023.995 {
            return (divisor, unit);
        }
        divisor *= 1024.0;
    }
    (divisor, "EiB")
}

#[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "shown with three digits")]
pub(crate) fn float(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remaining_time_is_readable() {
        for (left, rate, expected) in [
            (90, 1.0, "1:30"),
            (3 * 3600 + 62, 1.0, "3:01:02"),
            (1, 0.0, "-:--"),
            (u64::MAX, 1.0, "-:--"),
            (0, 1.0, "0:00"),
        ] {
            assert_eq!(eta(left, rate), expected);
        }
    }

    #[test]
    fn sizes_are_shown_in_the_unit_that_fits() {
        for (n, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            ((1 << 20) - 1, "1.00 MiB"),
            ((1 << 20) - 6, "1023.99 KiB"),
            ((1 << 30) - 1, "1.00 GiB"),
            (u64::MAX, "16.00 EiB"),
        ] {
            assert_eq!(bytes(n), expected);
        }
        assert_eq!((count(1, "byte"), count(0, "byte")), ("1 byte".to_owned(), "0 bytes".to_owned()));
    }
}
