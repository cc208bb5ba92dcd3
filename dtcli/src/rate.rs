//! Rates on the command line.

use std::num::NonZeroU64;

/// Parses a rate in bytes a second: `500000`, `500K`, `2M`, `1.5MiB`; K, M, G and T are powers of 1024.
///
/// # Errors
/// A message with the valid forms.
pub fn rate(text: &str) -> Result<NonZeroU64, String> {
    let invalid = || "must be a rate in bytes a second, such as 500K, 2M or 1.5MiB".to_owned();
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| invalid())?;
    let unit = unit.trim().to_ascii_lowercase();
    let prefix = unit.strip_suffix('b').unwrap_or(&unit);
    let factor: u64 = match prefix.strip_suffix('i').unwrap_or(prefix) {
        "" if prefix.is_empty() => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        _ => return Err(invalid()),
    };
    #[expect(
        clippy::as_conversions,
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the number has no sign, and the cast saturates"
    )]
    let bytes = (number * factor as f64) as u64;
    NonZeroU64::new(bytes).ok_or_else(|| "must be at least 1 byte a second".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_numbers_with_an_optional_unit() {
        for (text, expected) in [
            ("1", 1),
            ("500000", 500_000),
            ("500K", 512_000),
            ("2m", 2 << 20),
            (" 1.5MiB ", 3 << 19),
            ("2 GB", 2 << 30),
            ("1T", 1 << 40),
            ("0.5k", 512),
        ] {
            assert_eq!(rate(text).map(NonZeroU64::get), Ok(expected), "{text}");
        }
        for text in [
            "", "0", "0.1", "-1", "K", "2X", "2MM", "1.2.3", "1e9", "i", "2iB", "500kbbb", "1kiib", "1bb",
            "nan", "inf",
        ] {
            assert!(rate(text).is_err(), "{text}");
        }
    }
}
