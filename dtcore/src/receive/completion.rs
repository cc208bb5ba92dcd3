//! Whether a transfer is over, and how it ended.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use super::source::EndNotice;
use crate::failure::Failure;
use crate::sync::Lock;

/// The one keeper of how a transfer ends.
#[derive(Debug, Default)]
pub(super) struct Completion {
    failure: Lock<Option<Failure>>,
    has_failed: AtomicBool,
    is_accepted: AtomicBool,
    is_left: AtomicBool,
    changed: Notify,
}

impl Completion {
    /// Ends the transfer with an error; the first one counts.
    pub(super) fn fail(&self, error: Failure) {
        self.failure.lock().get_or_insert(error);
        self.has_failed.store(true, Ordering::Release);
        self.check();
    }

    /// Has the supervisor check whether the transfer is complete.
    pub(super) fn check(&self) {
        self.changed.notify_one();
    }

    /// Nothing more is requested; the sender is notified.
    pub(super) fn end(&self, notice: EndNotice) {
        let flag = match notice {
            EndNotice::Complete => &self.is_accepted,
            EndNotice::Leaving => &self.is_left,
        };
        flag.store(true, Ordering::Release);
    }

    pub(super) fn is_accepted(&self) -> bool {
        self.is_accepted.load(Ordering::Acquire)
    }

    /// Whether it succeeded, failed, or was given up.
    pub(super) fn is_ended(&self) -> bool {
        [&self.has_failed, &self.is_accepted, &self.is_left].iter().any(|flag| flag.load(Ordering::Acquire))
    }

    /// The error, once.
    pub(super) fn take_failure(&self) -> Option<Failure> {
        self.failure.lock().take()
    }

    /// Waits until there is something to check.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}
