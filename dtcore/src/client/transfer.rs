//! A running transfer: a future of its outcome.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::runtime::Threads;
use crate::error::TransferError;
use crate::event::{self, EventSender, Events};
use crate::failure::Failure;

/// A running transfer: a future of its outcome.
///
/// It makes progress on the threads of its client, whether it is polled or not.
///
/// # Cancel safety
/// Dropping it cancels the transfer; its connections are closed a moment later, and its part file is removed too unless it can
/// be resumed. To wait for that, cancel by a [`CancelHandle`] and await the transfer.
#[must_use = "a transfer that is dropped is cancelled"]
pub struct Transfer<T> {
    events: Option<Events>,
    outcome: oneshot::Receiver<Result<T, Failure>>,
    cancel: CancelHandle,
}

impl<T: Send + 'static> Transfer<T> {
    /// Starts `run` on these threads.
    pub(super) fn start<F>(threads: &Threads, run: impl FnOnce(EventSender, CancellationToken) -> F) -> Self
    where
        F: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        let (sender, events) = event::channel();
        let (outcome_sender, outcome) = oneshot::channel();
        let cancel = CancellationToken::new();
        let running = run(sender, cancel.clone());
        threads.spawn(async move {
            // An error only says that nobody waits for the outcome any more.
            let _ = outcome_sender.send(running.await);
        });
        Self { events: Some(events), outcome, cancel: CancelHandle(cancel) }
    }
}

impl<T> Transfer<T> {
    /// The events of the transfer; `None` if they were taken before.
    pub fn take_events(&mut self) -> Option<Events> {
        self.events.take()
    }

    /// A handle that cancels the transfer from elsewhere.
    pub fn cancel_handle(&self) -> CancelHandle {
        self.cancel.clone()
    }
}

impl<T> Future for Transfer<T> {
    type Output = Result<T, TransferError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let died = |_| {
            Failure::system("continue", "the task of the transfer has panicked, or its runtime has shut down")
        };
        let outcome = std::task::ready!(Pin::new(&mut self.outcome).poll(cx));
        Poll::Ready(outcome.map_err(died).and_then(|outcome| outcome).map_err(TransferError::from))
    }
}

impl<T> Drop for Transfer<T> {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl<T> fmt::Debug for Transfer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Transfer")
    }
}

/// Cancels a transfer from elsewhere, such as the task of a signal handler.
#[derive(Clone, Debug)]
pub struct CancelHandle(CancellationToken);

impl CancelHandle {
    /// Ends the transfer with [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled), unless it has ended already.
    pub fn cancel(&self) {
        self.0.cancel();
    }
}
