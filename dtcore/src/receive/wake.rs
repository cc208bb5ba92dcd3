//! The line to one stream's task: how the others make it look up.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::schedule::Fault;

/// What the others have to say to one stream.
#[derive(Debug, Default)]
pub(crate) struct Line {
    replace: Mutex<Option<Fault>>,
    changed: Notify,
    replaced: Notify,
}

/// Why a stream was made to look up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Woken {
    /// Something has changed: there may be blocks to ask for, or the one that is being received is not needed any more.
    Look,
    /// The connection shall be ended and made anew.
    Replace(Fault),
}

impl Line {
    /// Makes the stream look up.
    pub(crate) fn wake(&self) {
        self.changed.notify_one();
    }

    /// Makes the stream end its connection and make a new one.
    pub(crate) fn replace(&self, fault: Fault) {
        *self.fault() = Some(fault);
        self.replaced.notify_one();
        self.changed.notify_one();
    }

    /// Forgets what was said to a connection that has ended.
    pub(crate) fn clear(&self) {
        *self.fault() = None;
    }

    /// Waits until somebody wants the stream to look up.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn woken(&self) -> Woken {
        self.changed.notified().await;
        let fault = self.fault().take();
        fault.map_or(Woken::Look, Woken::Replace)
    }

    /// Waits until the stream shall be replaced.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn replaced(&self) -> Fault {
        loop {
            self.replaced.notified().await;
            // The notice may be an old one, for a connection that has ended.
            if let Some(fault) = self.fault().take() {
                return fault;
            }
        }
    }

    fn fault(&self) -> MutexGuard<'_, Option<Fault>> {
        // Whatever is in it is whole.
        self.replace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_said_before_anybody_listened_is_heard() {
        let line = Line::default();
        line.wake();
        assert_eq!(line.woken().await, Woken::Look);
        line.replace(Fault::Stalled);
        assert_eq!(line.woken().await, Woken::Replace(Fault::Stalled));
        line.replace(Fault::Slow);
        assert_eq!(line.replaced().await, Fault::Slow);
        line.replace(Fault::Slow);
        line.clear();
        assert_eq!(line.woken().await, Woken::Look, "the next connection is not to blame");
    }
}
