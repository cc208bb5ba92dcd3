//! Errors for people: one line each, on standard error, and an exit code for scripts.

use std::io::{self, Write};
use std::process::ExitCode;

/// The exit code of a command line that cannot be understood.
const USAGE: u8 = 2;

/// Prints a line on standard error. Where that takes nothing, the exit code still tells.
pub fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Prints the error of `program` as one line, and returns its exit code.
pub fn fail(program: &str, error: &str, code: u8) -> ExitCode {
    say(&format!("{program}: {}", one_line(error)));
    ExitCode::from(code)
}

/// What to do when the command line did not give what the program needs: help and version are printed as they are,
/// errors in one line.
pub fn usage(program: &str, error: &clap::Error) -> ExitCode {
    if error.exit_code() == 0 {
        // A reader that has gone away has seen what it wanted.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    fail(program, &usage_line(program, error), USAGE)
}

/// What is wrong with a command line, and where to read more.
pub(crate) fn usage_line(program: &str, error: &clap::Error) -> String {
    let text = error.to_string();
    let message = text.strip_prefix("error: ").unwrap_or(&text);
    // The first paragraph says what is wrong; usage and the way to the help follow it.
    let paragraph = message.split("\n\n").next().unwrap_or_default();
    format!("{paragraph}; try '{program} --help'")
}

/// `text` with its lines joined and control characters replaced, whatever names and peers put into it.
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
    fn whatever_it_holds_it_is_one_line() {
        assert_eq!(one_line("missing:\n  <A>\n\t<B>"), "missing: <A> <B>");
        assert_eq!(one_line("a\u{1b}[31mb\u{7f}"), "a?[31mb?");
    }

    #[test]
    fn reasons_are_lower_case_words() {
        assert_eq!(reason(&io::Error::from_raw_os_error(13)), "permission denied");
    }
}
