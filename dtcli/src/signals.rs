//! The signals that end a program.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGINT, SIGTERM and SIGHUP, caught from its creation on.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
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
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
            _too_large: signal(SignalKind::from_raw(TOO_LARGE))?,
        })
    }

    /// Waits for the next of them, and returns the exit code of a program that it kills.
    ///
    /// # Cancel safety
    /// Cancel safe: a signal is either returned or still there.
    pub async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.interrupt.recv() => 130,
            _ = self.terminate.recv() => 143,
            _ = self.hang_up.recv() => 129,
        }
    }
}
