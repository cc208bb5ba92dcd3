//! Whole numbers and switches as people write them, and in what words they are told which of them there are.

use std::num::NonZeroUsize;

/// Reads the number of a port.
///
/// # Errors
/// Which numbers there are.
pub fn port(text: &str) -> Result<u16, String> {
    text.trim().parse().map_err(|_| "a port is a whole number from 0 to 65535".to_owned())
}

/// Reads a count that may be 0.
///
/// # Errors
/// Which numbers there are.
pub fn count(text: &str) -> Result<u32, String> {
    text.trim().parse().map_err(|_| format!("it is a whole number from 0 to {}", u32::MAX))
}

/// Reads a count of something that there must be one of at least.
///
/// # Errors
/// Which numbers there are.
pub fn at_least_one(text: &str) -> Result<NonZeroUsize, String> {
    text.trim().parse().map_err(|_| "it is a whole number, 1 at least".to_owned())
}

/// Reads what a variable says of a switch; in any case of letters.
///
/// # Errors
/// Which words there are.
pub fn switch(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" => Ok(true),
        "false" | "0" | "no" => Ok(false),
        _ => Err("it is true, false, 1, 0, yes or no".to_owned()),
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
    fn a_switch_says_yes_or_no() {
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
