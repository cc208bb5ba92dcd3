//! The programs' arguments: positional, each with a default, options, and sizes as people write them.

use std::collections::VecDeque;
use std::path::Path;
use std::str::FromStr;

use crate::Failure;
use crate::product::OldPrograms;

/// The arguments of this process that were not taken yet.
#[derive(Debug)]
pub struct Arguments {
    rest: VecDeque<String>,
    usage: &'static str,
}

impl Arguments {
    /// All arguments; `usage` is what a failure shows.
    pub fn new(usage: &'static str) -> Self {
        Self { rest: std::env::args().skip(1).collect(), usage }
    }

    /// The next argument, or `default` if there is none.
    ///
    /// # Errors
    /// If it cannot be read as a `T`.
    pub fn next<T: FromStr>(&mut self, name: &str, default: T) -> Result<T, Failure> {
        let Some(text) = self.rest.pop_front() else { return Ok(default) };
        text.parse().map_err(|_| self.wrong(name, &text))
    }

    /// The next argument as a size in bytes, or `default`, written alike, if there is none.
    ///
    /// # Errors
    /// If it is no size.
    pub fn next_size(&mut self, name: &str, default: &str) -> Result<u64, Failure> {
        let text = self.rest.pop_front().unwrap_or_else(|| default.to_owned());
        size(&text).ok_or_else(|| self.wrong(name, &text))
    }

    /// The value after the option `name`, wherever it stands; both are taken out.
    ///
    /// # Errors
    /// If nothing stands after it.
    pub fn option(&mut self, name: &str) -> Result<Option<String>, Failure> {
        let Some(at) = self.rest.iter().position(|argument| argument == name) else { return Ok(None) };
        self.rest.remove(at);
        self.rest.remove(at).map(Some).ok_or_else(|| self.wrong(name, ""))
    }

    /// The earlier build of the product that `--old DIR` names, if it is given.
    ///
    /// # Errors
    /// If its programs are not there.
    pub fn old(&mut self) -> Result<Option<OldPrograms>, Failure> {
        let folder = self.option("--old")?;
        folder.map(|folder| OldPrograms::in_folder(Path::new(&folder))).transpose()
    }

    /// Whether the flag `name` stands anywhere; it is taken out.
    pub fn flag(&mut self, name: &str) -> bool {
        let at = self.rest.iter().position(|argument| argument == name);
        at.is_some_and(|at| self.rest.remove(at).is_some())
    }

    /// The arguments that were not taken.
    pub fn rest(self) -> Vec<String> {
        self.rest.into()
    }

    fn wrong(&self, name: &str, text: &str) -> Failure {
        format!("{name} cannot be {text:?}; usage: {}", self.usage).into()
    }
}

/// A size: `2048` is so many MiB, and `1B`, `200MB`, `64KiB`, `2GiB` have their units.
pub fn size(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 7] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("B", 1),
    ];
    let split = UNITS.iter().find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, *bytes)));
    let (number, unit) = split.unwrap_or((text, 1 << 20));
    number.parse::<u64>().ok()?.checked_mul(unit)
}

/// A size for people: `2 GiB`, `200 MB`, `1 B`.
pub fn human_size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 6] = [
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("GB", 1_000_000_000),
        ("MB", 1_000_000),
        ("KiB", 1 << 10),
        ("KB", 1_000),
    ];
    let largest = UNITS.iter().find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit));
    largest.map_or_else(|| format!("{bytes} B"), |(name, unit)| format!("{} {name}", bytes / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_parsed() {
        for (text, expected) in [
            ("2048", Some(2 << 30)),
            ("1B", Some(1)),
            ("200MB", Some(200_000_000)),
            ("64KiB", Some(65_536)),
            ("GiB", None),
            ("99999999999GiB", None),
            ("a", None),
        ] {
            assert_eq!(size(text), expected, "{text}");
        }
    }

    #[test]
    fn sizes_are_printed_in_the_largest_whole_unit() {
        for (bytes, expected) in
            [(0, "0 B"), (1, "1 B"), (200_000_000, "200 MB"), (2 << 30, "2 GiB"), (1536 << 20, "1536 MiB")]
        {
            assert_eq!(human_size(bytes), expected);
        }
    }
}
