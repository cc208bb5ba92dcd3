//! Errors for users and scripts: one line each, on standard error, and an exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::StandardOutput;

/// The exit code for an invalid command line.
const USAGE: u8 = 2;

/// The exit code for a file of this machine that cannot be written.
const LOCAL_FILE: u8 = 8;

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
    if error.exit_code() != 0 {
        return fail(program, &usage_line(program, error), USAGE);
    }
    match StandardOutput::open().and_then(|_| error.print()) {
        // A reader that has closed the pipe needs no more of it.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            fail(program, &format!("cannot write to standard output: {}", reason(&error)), LOCAL_FILE)
        }
        _ => ExitCode::SUCCESS,
    }
}

/// The error of a command line, and where to read more.
pub(crate) fn usage_line(program: &str, error: &clap::Error) -> String {
    let text = error.to_string();
    let message = text.strip_prefix("error: ").unwrap_or(&text);
    // The first paragraph is the error; hints and usage follow it.
    let mut paragraphs = message.split("\n\n");
    let mut line = paragraphs.next().unwrap_or_default().to_owned();
    let tips = paragraphs.filter_map(|paragraph| paragraph.trim_start().strip_prefix("tip: "));
    for tip in tips.flat_map(|tips| tips.split("tip: ")) {
        line.push_str("; ");
        line.push_str(tip.trim());
    }
    format!("{line}; try '{program} --help'")
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
    fn error_of_a_command_line_comes_with_its_suggestion() {
        let mut command = clap::Command::new("test").arg(clap::Arg::new("sync").long("sync"));
        let error = command.try_get_matches_from_mut(["test", "--snyc"]).unwrap_err();
        let expected =
            "unexpected argument '--snyc' found; a similar argument exists: '--sync'; try 'test --help'";
        assert_eq!(one_line(&usage_line("test", &error)), expected);
    }

    #[test]
    fn reason_is_lower_case_without_a_number() {
        assert_eq!(reason(&io::Error::from_raw_os_error(13)), "permission denied");
    }
}
