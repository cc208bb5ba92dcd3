//! Which streams of a transfer are expected, open, and complete.

use crate::manifest::{StreamCount, StreamId};
use crate::send::StreamRefusal;
use crate::sync::Lock;

/// One slot for each stream of a transfer.
#[derive(Debug)]
pub(super) struct Slots {
    streams: StreamCount,
    slots: Lock<Vec<Slot>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Slot {
    Free,
    Open,
    Complete,
}

/// The right to carry a stream; dropping it frees the stream for another connection.
#[derive(Debug)]
pub(super) struct SlotGuard<'a> {
    slots: &'a Slots,
    pub(super) stream: StreamId,
    /// The slot after the end of the connection.
    after: Slot,
}

impl Slots {
    pub(super) fn new(streams: StreamCount) -> Self {
        Self { streams, slots: Lock::new(vec![Slot::Free; usize::from(streams.value())]) }
    }

    /// Gives the stream with this id to a connection; a refusal changes nothing.
    pub(super) fn claim(&self, id: u8) -> Result<SlotGuard<'_>, StreamRefusal> {
        let stream = self.streams.stream(id).ok_or(StreamRefusal::OutOfRange(id))?;
        let mut slots = self.slots.lock();
        let slot = slots.get_mut(stream.index()).ok_or(StreamRefusal::OutOfRange(id))?;
        match slot {
            Slot::Free => *slot = Slot::Open,
            Slot::Open => return Err(StreamRefusal::Busy(stream)),
            Slot::Complete => return Err(StreamRefusal::Complete(stream)),
        }
        Ok(SlotGuard { slots: self, stream, after: Slot::Free })
    }

    /// How many streams are open.
    pub(super) fn n_open(&self) -> usize {
        self.slots.lock().iter().filter(|slot| **slot == Slot::Open).count()
    }

    /// How many streams are not complete.
    pub(super) fn n_missing(&self) -> usize {
        self.slots.lock().iter().filter(|slot| **slot != Slot::Complete).count()
    }
}

impl SlotGuard<'_> {
    /// Marks the stream as sent.
    pub(super) fn complete(mut self) {
        self.after = Slot::Complete;
    }
}

impl Drop for SlotGuard<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.slots.slots.lock().get_mut(self.stream.index()) {
            *slot = self.after;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_has_one_connection_at_a_time_and_completes_once() {
        let count = StreamCount::new(2).unwrap();
        let one = count.stream(1).unwrap();
        let slots = Slots::new(count);
        let refusal = |id| slots.claim(id).map(|guard| guard.stream).unwrap_err();
        assert_eq!(refusal(2), StreamRefusal::OutOfRange(2));
        assert_eq!(refusal(255), StreamRefusal::OutOfRange(255));
        let guard = slots.claim(1).unwrap();
        assert_eq!((guard.stream, refusal(1)), (one, StreamRefusal::Busy(one)));
        drop(guard);
        assert_eq!((slots.n_open(), slots.n_missing()), (0, 2));
        slots.claim(1).unwrap().complete();
        assert_eq!(refusal(1), StreamRefusal::Complete(one));
        let guard = slots.claim(0).unwrap();
        assert_eq!((slots.n_open(), slots.n_missing()), (1, 1));
        guard.complete();
        assert_eq!((slots.n_open(), slots.n_missing()), (0, 0));
    }
}
