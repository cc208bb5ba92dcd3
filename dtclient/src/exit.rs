//! Failures for people and scripts: one line that says what failed, why, and what to do, and an exit code.

use std::error::Error;
use std::io;
use std::process::ExitCode;

use dtcli::reason;
use dtcore::{ErrorKind, TransferError};

use crate::progress::Resumable;
use crate::resume;

/// Why the program fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The transfer failed.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// A signal has ended the transfer.
    #[error("interrupted")]
    Interrupted {
        /// The exit code of a program that such a signal kills.
        exit: u8,
    },
    /// Standard output does not take what belongs there.
    #[error("cannot write to standard output")]
    StandardOutput(#[source] io::Error),
    /// The system did not provide what the program itself needs.
    #[error("cannot {action}")]
    System { action: &'static str, source: io::Error },
    /// The user did not wait for an interrupted transfer to clean up, or that took too long.
    #[error("interrupted during cleanup; a part file may be left, which the next run reuses")]
    Abandoned { exit: u8 },
    /// The output has to be named after the remote file.
    #[error("FILE has no name that an output could have; name the OUTPUT, or try 'dtclient --help'")]
    NoName,
    /// A digest is that of a file, and protocol 1 knows files only.
    #[error(
        "the arguments '--checksum' and '--protocol 1' cannot be used with a directory; try 'dtclient --help'"
    )]
    NotOfTree,
    /// Both would go to standard output.
    #[error("the argument '--json' cannot be used with standard output as OUTPUT; try 'dtclient --help'")]
    JsonAndOutput,
}

/// The exit code of an invalid command line.
pub(crate) const USAGE: u8 = 2;

/// The exit code of an output that cannot be written.
const LOCAL_FILE: u8 = 8;

/// How the program ends.
pub(crate) struct Outcome {
    pub(crate) exit: u8,
    /// The kind of the failure, for programs.
    pub(crate) code: &'static str,
    /// The message, for people.
    pub(crate) line: String,
}

/// Prints the failure and returns its exit code.
pub(crate) fn fail(failure: &Failure) -> ExitCode {
    let Outcome { exit, line, .. } = outcome(failure, &Resumable::Unchanged);
    dtcli::fail("dtclient", &line, exit)
}

/// How a program ends with this `failure`, which leaves something to resume or not.
pub(crate) fn outcome(failure: &Failure, resumable: &Resumable) -> Outcome {
    let (exit, code, advice) = match failure {
        Failure::Transfer(error) => (exit_code(error.kind()), error.code(), advice(error)),
        Failure::Interrupted { exit } | Failure::Abandoned { exit } => {
            (*exit, ErrorKind::Cancelled.code(), None)
        }
        Failure::StandardOutput(_) => (LOCAL_FILE, ErrorKind::LocalFile.code(), None),
        Failure::System { .. } => (1, ErrorKind::System.code(), None),
        Failure::NoName | Failure::JsonAndOutput | Failure::NotOfTree => (USAGE, "usage", None),
    };
    let line = match (resumable, failure) {
        (Resumable::Bytes(saved), _) => {
            let is_final = matches!(failure, Failure::Transfer(error) if is_final(error.kind()));
            let resume = if is_final {
                // The same command would end the same way; the advice says what to change.
                format!("{saved} saved; the next run resumes")
            } else {
                format!("{saved} saved; to resume, run {}", resume::command())
            };
            let advice = advice.map(str::to_owned).into_iter().chain([resume]);
            line(failure, Some(&advice.collect::<Vec<_>>().join("; ")))
        }
        (Resumable::AtServer, _) => {
            let resume =
                format!("the server keeps what it has verified; to resume, run {}", resume::command());
            let advice = advice.map(str::to_owned).into_iter().chain([resume]);
            line(failure, Some(&advice.collect::<Vec<_>>().join("; ")))
        }
        (Resumable::Nothing, Failure::Interrupted { .. }) => line(failure, Some(NOTHING_SAVED)),
        (Resumable::Unchanged, Failure::Interrupted { .. }) => {
            line(failure, Some("nothing was received yet; run the command again"))
        }
        (Resumable::Unchanged, Failure::Transfer(error)) if error.kind() == ErrorKind::TimedOut => {
            line(failure, Some(NOT_ANSWERED))
        }
        (Resumable::Nothing | Resumable::Unchanged, _) => line(failure, advice),
    };
    Outcome { exit, code, line }
}

/// The advice where what was received is gone.
const NOTHING_SAVED: &str = "nothing was saved; run the command again";

/// The advice about a server that has not answered.
const NOT_ANSWERED: &str = "check the server and the network, and run the command again; an original server, which hashes the \
                            file first, may need --protocol 1";

/// Whether the same command cannot succeed, because its arguments forbid it.
fn is_final(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ChecksumMismatch | ErrorKind::OutputExists)
}

/// The exit code; the table is part of the command line's contract.
#[expect(clippy::wildcard_enum_match_arm, reason = "a kind without an exit code of its own is another error")]
fn exit_code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::NotFound | ErrorKind::Forbidden | ErrorKind::Unreadable => 3,
        ErrorKind::Unreachable
        | ErrorKind::UnknownHost
        | ErrorKind::ConnectionLost
        | ErrorKind::StreamsBlocked => 4,
        ErrorKind::Busy => 5,
        ErrorKind::DigestMismatch | ErrorKind::ChecksumMismatch | ErrorKind::CorruptBlock => 6,
        ErrorKind::DiskFull | ErrorKind::TooLarge => 7,
        ErrorKind::LocalFile => LOCAL_FILE,
        ErrorKind::Unauthorized => 9,
        ErrorKind::TimedOut => 10,
        ErrorKind::SourceChanged | ErrorKind::SourceReplaced => 11,
        ErrorKind::Protocol | ErrorKind::NotDtserver => 12,
        ErrorKind::OutputExists | ErrorKind::OutputInUse => 13,
        ErrorKind::Cancelled => 130,
        _ => 1,
    }
}

/// What to do about it.
#[expect(clippy::wildcard_enum_match_arm, reason = "there is no advice for the other kinds")]
fn advice(error: &TransferError) -> Option<&'static str> {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    Some(match error.kind() {
        // It is there where the server has given another reason.
        ErrorKind::NotFound if !error.to_string().ends_with('"') => return None,
        ErrorKind::NotFound => "names are relative to the directory that the server serves",
        // The server has given the reason.
        ErrorKind::Forbidden if !error.to_string().starts_with("permission denied") => return None,
        ErrorKind::Forbidden => "make it readable for the server's user",
        ErrorKind::Unreadable => "check the server's disk, and the file on it",
        ErrorKind::Busy => "try again later, or keep trying with --retry-time",
        ErrorKind::UnknownHost => "check the name, and that this machine can resolve names",
        ErrorKind::NotDtserver => "check the address and the port",
        ErrorKind::Unreachable => advice_on_connecting(cause?),
        ErrorKind::StreamsBlocked => "connect to the server directly",
        // The server has given the reason, or has closed in order, which it does not for a file that changes.
        ErrorKind::ConnectionLost
            if matches!(cause, Some(io::ErrorKind::Other | io::ErrorKind::UnexpectedEof)) =>
        {
            "run the command again"
        }
        ErrorKind::ConnectionLost => {
            "the server may have stopped, or the file may have changed; run the command again"
        }
        ErrorKind::TimedOut => "check the server and the network, and run the command again",
        // What is saved is of the old version, so the next run would not resume.
        ErrorKind::SourceChanged => "to start over once nobody writes to it, add --no-resume",
        ErrorKind::Protocol => "check that it is a dtserver of this version",
        ErrorKind::DiskFull if error.peer().is_some() => "make room there, or choose another server",
        ErrorKind::TooLarge if error.peer().is_some() => return None,
        ErrorKind::DiskFull => "free some, or choose another output",
        ErrorKind::TooLarge => {
            "raise the limit (ulimit -f), or choose a file system that supports files of this size"
        }
        ErrorKind::OutputExists if error.peer().is_some() => {
            "to replace it, add --overwrite, if the server permits that"
        }
        ErrorKind::OutputInUse if error.peer().is_some() => "wait for it, or choose another name",
        ErrorKind::OutputExists => "remove it, or omit --no-clobber",
        ErrorKind::OutputInUse => "wait for it, or choose another output",
        ErrorKind::ChecksumMismatch => {
            "it arrived as the server has it, so it is not the file that you expect: check where it is from"
        }
        ErrorKind::SourceReplaced => "to start over with the new version, add --no-resume",
        ErrorKind::CorruptBlock => {
            "the file, the server's memory or the network is faulty; run the command again"
        }
        ErrorKind::DigestMismatch => NOTHING_SAVED,
        // What is uploaded cannot be read, which its reason explains.
        ErrorKind::LocalFile if error.to_string().starts_with("cannot read ") => return None,
        ErrorKind::LocalFile => return advice_on_file(cause?),
        ErrorKind::System if error.is_retryable() => "raise the limit (ulimit -n), or use fewer streams",
        ErrorKind::System if cause == Some(io::ErrorKind::WouldBlock) => "raise the limit (ulimit -u)",
        _ => return None,
    })
}

/// What to do about a server to which no connection can be made.
#[expect(clippy::wildcard_enum_match_arm, reason = "there is one advice for the other kinds")]
fn advice_on_connecting(kind: io::ErrorKind) -> &'static str {
    match kind {
        // A firewall that refuses has sent this too, but a server that is not running is the usual cause.
        io::ErrorKind::ConnectionRefused => "check that dtserver is running there, on this port",
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => {
            "check the address, and the network"
        }
        io::ErrorKind::InvalidInput | io::ErrorKind::AddrNotAvailable => "check the address",
        _ => "check that dtserver is running there, and that no firewall is in between",
    }
}

/// What to do about an output that cannot be written.
#[expect(clippy::wildcard_enum_match_arm, reason = "there is no advice for the other kinds")]
fn advice_on_file(kind: io::ErrorKind) -> Option<&'static str> {
    Some(match kind {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => "create the directory first",
        io::ErrorKind::IsADirectory => "specify a file in it",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "choose an output in a writable directory"
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
    fn line_says_what_failed_why_and_what_to_do() {
        let source = io::Error::from_raw_os_error(13);
        let failure = Failure::System { action: "catch signals", source };
        assert_eq!(line(&failure, Some("try again")), "cannot catch signals: permission denied; try again");
    }

    #[test]
    fn interrupted_transfer_says_what_is_saved() {
        let interrupted = |resumable| outcome(&Failure::Interrupted { exit: 143 }, &resumable);
        let nothing = interrupted(Resumable::Nothing);
        assert_eq!((nothing.exit, nothing.code), (143, "cancelled"));
        assert_eq!(nothing.line, "interrupted; nothing was saved; run the command again");
        assert_eq!(
            interrupted(Resumable::Unchanged).line,
            "interrupted; nothing was received yet; run the command again"
        );
        let some = interrupted(Resumable::Bytes("5 MiB".to_owned())).line;
        assert!(some.starts_with("interrupted; 5 MiB saved; to resume, run "), "{some}");
    }

    #[test]
    fn exit_codes_are_those_of_the_contract() {
        for (kind, exit) in [
            (ErrorKind::StreamsBlocked, 4),
            (ErrorKind::Refused, 1),
            (ErrorKind::Busy, 5),
            (ErrorKind::UnknownHost, 4),
            (ErrorKind::NotDtserver, 12),
            (ErrorKind::ChecksumMismatch, 6),
            (ErrorKind::Unauthorized, 9),
            (ErrorKind::Cancelled, 130),
            (ErrorKind::System, 1),
        ] {
            assert_eq!(exit_code(kind), exit, "{kind:?}");
        }
    }
}
