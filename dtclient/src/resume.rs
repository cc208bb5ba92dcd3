//! The command that resumes an interrupted transfer: the same one, quoted for a shell.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// The option that starts over, and its environment variable.
const NO_RESUME: (&str, &str) = ("--no-resume", "DT_NO_RESUME");

/// This program's command line, quoted for a shell, without what makes it start over.
pub(crate) fn command() -> String {
    let (_, variable) = NO_RESUME;
    let unset = env::var_os(variable).map(|_| format!("env -u {variable}"));
    unset.into_iter().chain(resuming(env::args_os())).collect::<Vec<_>>().join(" ")
}

/// The words of a command line that resumes, quoted.
fn resuming(words: impl Iterator<Item = OsString>) -> Vec<String> {
    let (option, _) = NO_RESUME;
    let mut are_options = true;
    let is_resuming = |word: &OsString| {
        // After this word, everything is a name.
        are_options &= word != "--";
        !(are_options && word == option)
    };
    words.filter(is_resuming).map(|word| quoted(&word)).collect()
}

fn quoted(word: &OsStr) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "%+,-./:=@_".contains(c);
    match word.to_str() {
        Some(text) if !text.is_empty() && text.chars().all(is_plain) => text.to_owned(),
        Some(text) if !text.contains(char::is_control) => format!("'{}'", text.replace('\'', r"'\''")),
        Some(_) | None => escaped(word),
    }
}

/// A word with bytes that cannot be printed, as bash, zsh and ksh read it.
///
/// In octal, because they disagree about how many digits a hexadecimal escape has.
fn escaped(word: &OsStr) -> String {
    let mut text = String::from("$'");
    let octal = |bytes: &[u8]| bytes.iter().map(|byte| format!(r"\{byte:03o}")).collect::<Vec<_>>().concat();
    for chunk in word.as_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\'' | '\\' => text.extend(['\\', c]),
                c if c.is_control() => text.push_str(&octal(c.encode_utf8(&mut [0; 4]).as_bytes())),
                c => text.push(c),
            }
        }
        text.push_str(&octal(chunk.invalid()));
    }
    text + "'"
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// A quoted word as a shell reads it; `None` without such a shell.
    fn read_back(shell: &str, word: &OsStr) -> Option<Vec<u8>> {
        let script = format!("printf %s {}", quoted(word));
        let output = Command::new(shell).arg("-c").arg(script).output().ok()?;
        Some(output.stdout)
    }

    #[test]
    fn shell_reads_back_the_same_words() {
        for word in ["plain", "a/b-c_d.e:9000", "two words", "it's", "", "$HOME", "a\"b", "ü", "*", "a\\b"] {
            assert_eq!(read_back("sh", OsStr::new(word)).unwrap(), word.as_bytes());
        }
    }

    #[test]
    fn unprintable_names_are_escaped() {
        let words: [(&[u8], &str); 4] = [
            (b"f\xFF1", r"$'f\3771'"),
            (b"it's\n\\ too", r"$'it\'s\012\\ too'"),
            (b"\xC3\xBC\xC3", r"$'ü\303'"),
            (b"\x1B[31m", r"$'\033[31m'"),
        ];
        for (word, expected) in words {
            let word = OsStr::from_bytes(word);
            assert_eq!(quoted(word), expected);
            // Not every shell supports this quoting, and not every machine has one that does.
            if let Some(read) = read_back("bash", word) {
                assert_eq!(read, word.as_bytes());
            }
        }
    }

    #[test]
    fn option_that_starts_over_is_left_out() {
        for (words, expected) in [
            (&["dtclient", "--no-resume", "host", "8", "f", "out"][..], "dtclient host 8 f out"),
            (&["dtclient", "host", "8", "f", "out", "--no-resume", "-q"], "dtclient host 8 f out -q"),
            (&["dtclient", "--", "host", "8", "--no-resume", "out"], "dtclient -- host 8 --no-resume out"),
        ] {
            let words = words.iter().map(OsString::from);
            assert_eq!(resuming(words).join(" "), expected);
        }
    }
}
