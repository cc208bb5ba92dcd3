//! The signals that end a program.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGINT, SIGTERM and SIGHUP, caught from its creation on.
///
/// SIGINT and SIGHUP are left alone in a program that was started with them ignored, as `nohup` and shells that start one in
/// the background do.
#[derive(Debug)]
pub struct Signals {
    interrupt: Option<Signal>,
    terminate: Signal,
    hang_up: Option<Signal>,
    /// Caught so that a file that grows too large is an error of the write, and not the end of the program.
    _too_large: Signal,
}

/// SIGXFSZ on all architectures of Linux but MIPS, where it is another signal that nobody sends.
const TOO_LARGE: i32 = 25;

impl Signals {
    /// Catches the signals from now on; call it on a tokio runtime, before anything that a signal must not cut off.
    ///
    /// # Errors
    /// What the system says.
    pub fn new() -> io::Result<Self> {
        // Where it cannot be read, nothing is taken for ignored.
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

    /// Waits for the next of them, and returns the exit code of a program that it kills.
    ///
    /// # Cancel safety
    /// Cancel safe: a signal is either returned or still there.
    pub async fn next(&mut self) -> i32 {
        tokio::select! {
            () = received(&mut self.interrupt) => 130,
            _ = self.terminate.recv() => 143,
            () = received(&mut self.hang_up) => 129,
        }
    }
}

/// Waits for a signal; for ever if it is not listened for.
async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// The signals that a process ignores, one bit for each from 1 on, by its status as proc(5) describes it.
fn ignored(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ignored_is_read_from_the_status() {
        let status = "SigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000000002\n";
        for (text, expected) in [(status, 0x1001), ("", 0), ("SigIgn:\tx\n", 0)] {
            assert_eq!(ignored(text), expected, "{text:?}");
        }
    }
}
