//! The signals that stop a program.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Catches SIGINT, SIGTERM and SIGHUP from its creation on.
///
/// SIGINT and SIGHUP stay ignored if the program was started with them ignored, as by `nohup` or by a shell in the
/// background.
#[derive(Debug)]
pub struct Signals {
    interrupt: Option<Signal>,
    terminate: Signal,
    hang_up: Option<Signal>,
    /// Caught so that a file that grows too large fails the write instead of killing the program.
    _too_large: Signal,
}

/// SIGXFSZ on all architectures of Linux except MIPS, where it is a signal that is never sent to this program.
const TOO_LARGE: i32 = 25;

impl Signals {
    /// Catches the signals from now on. Must be called on a tokio runtime, before any work that a signal must not
    /// interrupt.
    ///
    /// # Errors
    /// The error of the system.
    pub fn new() -> io::Result<Self> {
        // If it cannot be read, no signal counts as ignored.
        let ignored = ignored(&std::fs::read_to_string("/proc/self/status").unwrap_or_default());
        let unless_ignored = |kind: SignalKind| {
            let is_ignored = ignored >> (kind.as_raw_value() - 1) & 1 == 1;
            if is_ignored { Ok(None) } else { signal(kind).map(Some) }
        };
        Ok(Self {
            interrupt: unless_ignored(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: unless_ignored(SignalKind::hangup())?,
            _too_large: signal(SignalKind::from_raw(TOO_LARGE))?,
        })
    }

    /// Waits for the next signal; returns the exit code of a program that is killed by it.
    ///
    /// # Cancel safety
    /// Cancel safe: a signal is either returned or still pending.
    pub async fn next(&mut self) -> i32 {
        tokio::select! {
            () = received(&mut self.interrupt) => 130,
            _ = self.terminate.recv() => 143,
            () = received(&mut self.hang_up) => 129,
        }
    }
}

/// Waits for a signal; indefinitely if it is not caught.
async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// The signals that a process ignores, as a bit mask that begins with signal 1, from its status as in proc(5).
fn ignored(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_status() {
        let status = "SigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000000002\n";
        for (text, expected) in [(status, 0x1001), ("", 0), ("SigIgn:\tx\n", 0)] {
            assert_eq!(ignored(text), expected, "{text:?}");
        }
    }
}
