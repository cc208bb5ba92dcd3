//! Errors for people: one line, what, where, why and how to go on, and the exit code that scripts can rely on.

use std::error::Error;
use std::process::ExitCode;

use dtcli::reason;
use dtcore::TransferError;

/// Prints the error and returns its exit code.
pub(crate) fn fail(error: &TransferError) -> ExitCode {
    dtcli::fail("dtclient", &line(error), code(error))
}

/// The exit code; the table is part of the command line's contract.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "kinds of error that come later are anything else until they have a code"
)]
fn code(error: &TransferError) -> u8 {
    match error {
        TransferError::NotFound { .. } | TransferError::Forbidden { .. } => 3,
        TransferError::Unreachable { .. } | TransferError::ConnectionLost { .. } => 4,
        TransferError::DigestMismatch { .. } => 6,
        TransferError::DiskFull { .. } => 7,
        TransferError::LocalFile { .. } => 8,
        TransferError::Unauthorized { .. } => 9,
        TransferError::TimedOut { .. } => 10,
        TransferError::SourceChanged { .. } => 11,
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
        TransferError::Refused { status: 429 | 503, .. } => "try again later",
        TransferError::Unreachable { .. } => {
            "check that dtserver runs there, on this port, and that no firewall is between"
        }
        TransferError::ConnectionLost { .. } => {
            "the server may have stopped, or the file changed there; run the command again"
        }
        TransferError::TimedOut { .. } => "check the server and the network, and run the command again",
        TransferError::SourceChanged { .. } => "run the command again when nobody writes to it",
        TransferError::Protocol { .. } => "check that it is a dtserver",
        TransferError::DiskFull { .. } => "free some space or choose another place",
        TransferError::OutputExists { .. } => "remove it, or leave out --no-clobber",
        TransferError::OutputInUse { .. } => "wait for it, or choose another output",
        TransferError::DigestMismatch { .. } | TransferError::Cancelled => {
            "nothing was kept; run the command again"
        }
        _ => return None,
    })
}

/// The message, its causes and the advice.
fn line(error: &TransferError) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.downcast_ref().map_or_else(|| error.to_string(), reason));
        cause = error.source();
    }
    if let Some(advice) = advice(error) {
        line.push_str("; ");
        line.push_str(advice);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn an_error_is_one_line_that_says_how_to_go_on() {
        let error = TransferError::Unreachable {
            server: "host:9000".to_owned(),
            source: io::Error::from_raw_os_error(111),
        };
        let expected = "cannot reach host:9000: connection refused; check that dtserver runs there, on this port, \
                        and that no firewall is between";
        assert_eq!(line(&error), expected);
        assert_eq!(code(&error), 4);
    }
}
