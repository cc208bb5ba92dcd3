//! Errors for users and scripts: one line each, on standard error, and an exit code.

use std::io::{self, Write};
use std::process::ExitCode;

/// The exit code for an invalid command line.
const USAGE: u8 = 2;

/// Prints a line on standard error. If that fails, the exit code still reports the result.
pub fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Prints the error of `program` as one line, and returns its exit code.
pub fn fail(program: &str, error: &str, code: u8) -> ExitCode {
    say(&format!("{program}: {}", one_line(error)));
    ExitCode::from(code)
}

/// Ends a program without valid arguments: prints help or version as they are, or the error as one line, and returns
/// the exit code.
pub fn usage(program: &str, error: &clap::Error) -> ExitCode {
    if error.exit_code() == 0 {
        // A reader that has closed the pipe needs no more of it.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    fail(program, &usage_line(program, error), USAGE)
}

/// The error of a command line, and where to read more.
pub(crate) fn usage_line(program: &str, error: &clap::Error) -> String {
    let text = error.to_string();
    let message = text.strip_prefix("error: ").unwrap_or(&text);
    // The first paragraph is the error; usage and hints follow it.
    let paragraph = message.split("\n\n").next().unwrap_or_default();
    format!("{paragraph}; try '{program} --help'")
}

/// `text` with its lines joined and control characters replaced: it may contain file names and what peers sent.
pub fn one_line(text: &str) -> String {
    let words: Vec<&str> =
        text.split(['\n', '\r', '\t']).map(str::trim).filter(|words| !words.is_empty()).collect();
    words.join(" ").chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// The system's reason in lower case, without its error number.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    text.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_joined_and_control_characters_replaced() {
        assert_eq!(one_line("missing:\n  <A>\n\t<B>"), "missing: <A> <B>");
        assert_eq!(one_line("a\u{1b}[31mb\u{7f}"), "a?[31mb?");
    }

    #[test]
    fn reason_is_lower_case_without_a_number() {
        assert_eq!(reason(&io::Error::from_raw_os_error(13)), "permission denied");
    }
}
