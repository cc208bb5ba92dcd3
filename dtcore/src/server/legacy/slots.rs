//! Which streams of a transfer are expected, open, and complete.

use crate::manifest::{StreamCount, StreamId};
use crate::send::StreamRefusal;

/// One slot for each stream of a transfer.
#[derive(Debug)]
pub(super) struct Slots {
    streams: StreamCount,
    slots: Vec<Slot>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Slot {
    Free,
    Serving,
    Complete,
}

impl Slots {
    pub(super) fn new(streams: StreamCount) -> Self {
        Self { streams, slots: vec![Slot::Free; usize::from(streams.value())] }
    }

    /// Gives the stream that calls itself `byte` to a connection; a refusal changes nothing.
    pub(super) fn claim(&mut self, byte: u8) -> Result<StreamId, StreamRefusal> {
        let id = self.streams.stream(byte).ok_or(StreamRefusal::OutOfRange(byte))?;
        let slot = self.slots.get_mut(id.index()).ok_or(StreamRefusal::OutOfRange(byte))?;
        match slot {
            Slot::Free => *slot = Slot::Serving,
            Slot::Serving => return Err(StreamRefusal::Busy(id)),
            Slot::Complete => return Err(StreamRefusal::Complete(id)),
        }
        Ok(id)
    }

    /// Frees a stream whose connection broke, for another connection.
    pub(super) fn release(&mut self, id: StreamId) {
        self.set(id, Slot::Free);
    }

    /// Marks a stream as sent.
    pub(super) fn complete(&mut self, id: StreamId) {
        self.set(id, Slot::Complete);
    }

    /// How many streams are being served.
    pub(super) fn n_serving(&self) -> usize {
        self.slots.iter().filter(|slot| **slot == Slot::Serving).count()
    }

    /// How many streams are not complete.
    pub(super) fn n_missing(&self) -> usize {
        self.slots.iter().filter(|slot| **slot != Slot::Complete).count()
    }

    fn set(&mut self, id: StreamId, to: Slot) {
        if let Some(slot) = self.slots.get_mut(id.index()) {
            *slot = to;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_served_by_one_connection_at_a_time_and_once() {
        let count = StreamCount::new(2).unwrap();
        let (zero, one) = (count.stream(0).unwrap(), count.stream(1).unwrap());
        let mut slots = Slots::new(count);
        assert_eq!(slots.claim(2), Err(StreamRefusal::OutOfRange(2)));
        assert_eq!(slots.claim(255), Err(StreamRefusal::OutOfRange(255)));
        assert_eq!(slots.claim(1), Ok(one));
        assert_eq!(slots.claim(1), Err(StreamRefusal::Busy(one)));
        slots.release(one);
        assert_eq!((slots.n_serving(), slots.n_missing()), (0, 2));
        assert_eq!(slots.claim(1), Ok(one));
        slots.complete(one);
        assert_eq!(slots.claim(1), Err(StreamRefusal::Complete(one)));
        assert_eq!(slots.claim(0), Ok(zero));
        assert_eq!((slots.n_serving(), slots.n_missing()), (1, 1));
        slots.complete(zero);
        assert_eq!((slots.n_serving(), slots.n_missing()), (0, 0));
    }
}
