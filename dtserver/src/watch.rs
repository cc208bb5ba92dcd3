//! The signals that end the server, on their own thread.

use std::io;
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};

use dtcli::Signals;
use tokio_util::sync::CancellationToken;

/// A thread that watches for signals; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    over: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Cancels `shutdown` at the first signal, whose name is in `received` then, and calls `exit` at the second one with the code of a
    /// program that it kills.
    ///
    /// The signals are caught when this returns. The thread has its own runtime: when all threads of the server wait
    /// for a disk that does not answer, their runtime sees no signal.
    pub(crate) fn begin(
        shutdown: CancellationToken,
        received: Arc<OnceLock<&'static str>>,
        exit: impl FnOnce(i32) + Send + 'static,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let mut signals = {
            let _entered = runtime.enter();
            Signals::new()?
        };
        let over = CancellationToken::new();
        let ended = over.clone();
        let watching = async move {
            let signal = match signals.next().await {
                129 => "SIGHUP",
                130 => "SIGINT",
                _ => "SIGTERM",
            };
            // It is first there, and not written here: a log that nobody reads would block this thread.
            let _ = received.set(signal);
            shutdown.cancel();
            exit(signals.next().await);
        };
        let thread = thread::Builder::new().name("dt-signals".to_owned());
        let thread = thread.spawn(move || {
            runtime.block_on(ended.run_until_cancelled(watching));
        })?;
        Ok(Self { over, thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported already.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn signals_are_seen_without_any_other_runtime() {
        let shutdown = CancellationToken::new();
        let (sender, exit) = mpsc::channel();
        let received = Arc::<OnceLock<_>>::default();
        let signal = Arc::clone(&received);
        let _watch = Watch::begin(shutdown.clone(), signal, move |code| sender.send(code).unwrap()).unwrap();
        let terminate = || {
            let kill = Command::new("kill").args(["-TERM", &std::process::id().to_string()]).status();
            assert!(kill.unwrap().success());
        };
        terminate();
        while !shutdown.is_cancelled() {
            std::thread::yield_now();
        }
        assert!(exit.try_recv().is_err());
        assert_eq!(received.get(), Some(&"SIGTERM"));
        terminate();
        assert_eq!(exit.recv_timeout(Duration::from_secs(30)), Ok(143));
    }
}
