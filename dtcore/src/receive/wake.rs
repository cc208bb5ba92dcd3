//! Signals from other tasks to a stream task.

use tokio::sync::Notify;

use crate::schedule::Fault;
use crate::sync::Lock;

/// Interrupts one stream task from elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Wake {
    replace: Lock<Option<Fault>>,
    changed: Notify,
    replaced: Notify,
}

/// Why a stream task was interrupted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Woken {
    /// Something has changed: there may be blocks to request, or the one that is being received is not needed any more.
    Check,
    /// The connection must be closed and replaced by another.
    Replace(Fault),
}

impl Wake {
    /// Interrupts the stream task, so that it checks what has changed.
    pub(super) fn wake(&self) {
        self.changed.notify_one();
    }

    /// Makes the stream task close its connection and open another one.
    pub(super) fn replace(&self, fault: Fault) {
        *self.replace.lock() = Some(fault);
        self.replaced.notify_one();
        self.changed.notify_one();
    }

    /// Forgets a request to replace a connection that has ended by itself.
    pub(super) fn clear(&self) {
        *self.replace.lock() = None;
    }

    /// Forgets a request to replace a connection for being stalled, as data has arrived on it.
    pub(super) fn keep(&self) {
        self.replace.lock().take_if(|fault| *fault == Fault::Stalled);
    }

    /// Waits for a signal.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn woken(&self) -> Woken {
        self.changed.notified().await;
        let fault = self.replace.lock().take();
        fault.map_or(Woken::Check, Woken::Replace)
    }

    /// Waits until the connection must be replaced.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn replaced(&self) -> Fault {
        loop {
            self.replaced.notified().await;
            // The permit may be left over from a connection that has ended.
            if let Some(fault) = self.replace.lock().take() {
                return fault;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn signal_before_wait_is_not_lost() {
        let wake = Wake::default();
        wake.wake();
        assert_eq!(wake.woken().await, Woken::Check);
        wake.replace(Fault::Stalled);
        assert_eq!(wake.woken().await, Woken::Replace(Fault::Stalled));
        wake.replace(Fault::Slow);
        assert_eq!(wake.replaced().await, Fault::Slow);
        wake.replace(Fault::Slow);
        wake.clear();
        assert_eq!(wake.woken().await, Woken::Check, "the next connection is not to blame");
    }
}
