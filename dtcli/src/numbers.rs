//! Whole numbers and switches on the command line.

use std::num::NonZeroUsize;

/// Parses a port number.
///
/// # Errors
/// A message with the valid numbers.
pub fn port(text: &str) -> Result<u16, String> {
    text.trim().parse().map_err(|_| "must be a whole number from 0 to 65535".to_owned())
}

/// Parses a count that may be 0.
///
/// # Errors
/// A message with the valid numbers.
pub fn count(text: &str) -> Result<u32, String> {
    text.trim().parse().map_err(|_| format!("must be a whole number from 0 to {}", u32::MAX))
}

/// Parses a count that must not be 0.
///
/// # Errors
/// A message with the valid numbers.
pub fn at_least_one(text: &str) -> Result<NonZeroUsize, String> {
    text.trim().parse().map_err(|_| "must be a whole number, at least 1".to_owned())
}

/// Parses the variable of a switch; upper and lower case are equal.
///
/// # Errors
/// A message with the valid words.
pub fn switch(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" => Ok(true),
        "false" | "0" | "no" => Ok(false),
        _ => Err("must be true, false, 1, 0, yes or no".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_bounds() {
        for (text, a_port, a_count, a_limit) in [
            ("1", true, true, true),
            ("0", true, true, false),
            (" 65535 ", true, true, true),
            ("65536", false, true, true),
            ("4294967296", false, false, true),
            ("18446744073709551616", false, false, false),
            ("-1", false, false, false),
            ("1.5", false, false, false),
            ("", false, false, false),
            ("x", false, false, false),
        ] {
            let read = (port(text).is_ok(), count(text).is_ok(), at_least_one(text).is_ok());
            assert_eq!(read, (a_port, a_count, a_limit), "{text:?}");
        }
    }

    #[test]
    fn switches_are_true_or_false() {
        for (text, expected) in [
            ("true", Some(true)),
            ("1", Some(true)),
            ("YES", Some(true)),
            ("False", Some(false)),
            ("0", Some(false)),
            ("no", Some(false)),
            ("", None),
            ("maybe", None),
            ("2", None),
        ] {
            assert_eq!(switch(text).ok(), expected, "{text:?}");
        }
    }
}
