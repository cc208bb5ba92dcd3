//! Errors for people: one line, what, where, why and how to go on, and the exit code that scripts can rely on.

use std::error::Error;
use std::io;
use std::process::ExitCode;

use dtcli::reason;
use dtcore::{DigestOrigin, TransferError};

use crate::progress::Resumable;
use crate::resume;

/// Why the program fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The transfer failed.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// The system did not give what the program itself needs.
    #[error("cannot {action}")]
    System { action: &'static str, source: io::Error },
    /// The user did not wait for an interrupted transfer to clean up, or it took too long.
    #[error("interrupted before it had cleaned up; a part file may be left, which the next run takes over")]
    Abandoned,
    /// Both would go to standard output.
    #[error("the argument '--json' cannot be used with standard output as OUTPUT; try 'dtclient --help'")]
    JsonAndOutput,
}

/// The exit code of a command line that asks for what cannot be.
pub(crate) const USAGE: u8 = 2;

/// What a failure means to the one who ran the program.
pub(crate) struct Outcome {
    pub(crate) code: u8,
    pub(crate) line: String,
}

/// Prints the failure and returns its exit code.
pub(crate) fn fail(failure: &Failure) -> ExitCode {
    let Outcome { code, line } = judge(failure, &Resumable::AsBefore);
    dtcli::fail("dtclient", &line, code)
}

/// The exit code and the words; `kept` says what there is to go on with.
pub(crate) fn judge(failure: &Failure, kept: &Resumable) -> Outcome {
    let (code, advice) = match failure {
        Failure::Transfer(error) => (code(error), advice(error)),
        Failure::System { .. } => (1, None),
        Failure::Abandoned => (130, None),
        Failure::JsonAndOutput => (USAGE, None),
    };
    let is_interrupted = matches!(failure, Failure::Transfer(TransferError::Cancelled));
    let line = match kept {
        Resumable::Bytes(kept) => {
            let is_final = matches!(failure, Failure::Transfer(error) if is_final(error));
            let go_on = if is_final {
                // The same command would end the same way; the advice says what to change.
                format!("{kept} are kept, with which the next run goes on")
            } else {
                format!("{kept} are kept; to go on, run {}", resume::command())
            };
            let advice = advice.map(str::to_owned).into_iter().chain([go_on]);
            line(failure, Some(&advice.collect::<Vec<_>>().join("; ")))
        }
        Resumable::Nothing if is_interrupted => line(failure, Some(NOTHING_KEPT)),
        Resumable::AsBefore if is_interrupted => {
            line(failure, Some("nothing had come yet; run the command again"))
        }
        Resumable::Nothing | Resumable::AsBefore => line(failure, advice),
    };
    Outcome { code, line }
}

/// The advice where what came is gone.
const NOTHING_KEPT: &str = "nothing was kept; run the command again";

/// Whether the same command cannot succeed, whatever the server and the disk do: what the user asks for forbids it.
fn is_final(error: &TransferError) -> bool {
    matches!(
        error,
        TransferError::DigestMismatch { origin: DigestOrigin::Caller, .. }
            | TransferError::OutputExists { .. }
    )
}

/// The exit code; the table is part of the command line's contract.
#[expect(clippy::wildcard_enum_match_arm, reason = "an error without a code of its own is anything else")]
fn code(error: &TransferError) -> u8 {
    match error {
        TransferError::NotFound { .. }
        | TransferError::Forbidden { .. }
        | TransferError::Unreadable { .. } => 3,
        TransferError::Unreachable { .. } | TransferError::ConnectionLost { .. } => 4,
        TransferError::DigestMismatch { .. } | TransferError::CorruptBlock { .. } => 6,
        TransferError::DiskFull { .. } | TransferError::TooLarge { .. } => 7,
        TransferError::LocalFile { .. } => 8,
        TransferError::Unauthorized { .. } => 9,
        TransferError::TimedOut { .. } => 10,
        TransferError::SourceChanged { .. } | TransferError::SourceReplaced { .. } => 11,
        TransferError::Protocol { .. } => 12,
        TransferError::OutputExists { .. } | TransferError::OutputInUse { .. } => 13,
        TransferError::Cancelled => 130,
        _ => 1,
    }
}

/// What to do about it.
#[expect(clippy::wildcard_enum_match_arm, reason = "where nothing helpful can be said, nothing is")]
fn advice(error: &TransferError) -> Option<&'static str> {
    Some(match error {
        TransferError::NotFound { .. } => "names are relative to the folder that the server serves",
        TransferError::Forbidden { .. } => "make it readable for the server's user",
        TransferError::Unreadable { .. } => "check the server's disk, and the file on it",
        TransferError::Refused { status: 429 | 503, .. } => "try again later",
        TransferError::Unreachable { .. } => {
            "check that dtserver runs there, on this port, and that no firewall is between"
        }
        // The server has said why, or has closed in order, which it does not for a file that changes.
        TransferError::ConnectionLost { source: Some(source), .. }
            if matches!(source.kind(), io::ErrorKind::Other | io::ErrorKind::UnexpectedEof) =>
        {
            "run the command again"
        }
        TransferError::ConnectionLost { .. } => {
            "the server may have stopped, or the file changed there; run the command again"
        }
        TransferError::TimedOut { .. } => "check the server and the network, and run the command again",
        // What is kept is of the old one, with which the next run would not go on.
        TransferError::SourceChanged { .. } => "to begin anew when nobody writes to it, add --no-resume",
        TransferError::Protocol { .. } => "check that it is a dtserver",
        TransferError::DiskFull { .. } => "free some space or choose another place",
        TransferError::TooLarge { .. } => {
            "raise the limit (ulimit -f), or choose a place on a file system that has files of that size"
        }
        TransferError::OutputExists { .. } => "remove it, or leave out --no-clobber",
        TransferError::OutputInUse { .. } => "wait for it, or choose another output",
        TransferError::DigestMismatch { origin: DigestOrigin::Caller, .. } => {
            "the server agrees with what was received; give the right --checksum, or leave it out"
        }
        TransferError::SourceReplaced { .. } => "to start over with what is there now, add --no-resume",
        TransferError::CorruptBlock { .. } => {
            "the file, the server's memory or something on the way is broken; run the command again"
        }
        TransferError::DigestMismatch { .. } => NOTHING_KEPT,
        TransferError::LocalFile { source, .. } => return advice_on_file(source.kind()),
        _ => return None,
    })
}

/// What to do about an output that cannot be written.
#[expect(clippy::wildcard_enum_match_arm, reason = "where nothing helpful can be said, nothing is")]
fn advice_on_file(kind: io::ErrorKind) -> Option<&'static str> {
    Some(match kind {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => "make the folder first",
        io::ErrorKind::IsADirectory => "name a file in it",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "choose a place that you may write to"
        }
        _ => return None,
    })
}

/// The message, its causes and the advice.
fn line(error: &dyn Error, advice: Option<&str>) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.downcast_ref().map_or_else(|| error.to_string(), reason));
        cause = error.source();
    }
    if let Some(advice) = advice {
        line.push_str("; ");
        line.push_str(advice);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_why_and_how_to_go_on() {
        let source = io::Error::from_raw_os_error(13);
        let failure = Failure::System { action: "catch signals", source };
        assert_eq!(line(&failure, Some("try again")), "cannot catch signals: permission denied; try again");
        assert_eq!(line(&Failure::from(TransferError::Cancelled), None), "interrupted");
        assert_eq!(code(&TransferError::Cancelled), 130);
    }

    #[test]
    fn what_is_kept_is_said_where_it_is_known() {
        let interrupted = |kept| judge(&Failure::from(TransferError::Cancelled), &kept).line;
        assert_eq!(interrupted(Resumable::Nothing), "interrupted; nothing was kept; run the command again");
        assert_eq!(
            interrupted(Resumable::AsBefore),
            "interrupted; nothing had come yet; run the command again"
        );
        let some = interrupted(Resumable::Bytes("5 MiB".to_owned()));
        assert!(some.starts_with("interrupted; 5 MiB are kept; to go on, run "), "{some}");
    }
}
