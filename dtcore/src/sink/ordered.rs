//! The reorder buffer: a store for outputs that are written in order, such as pipes and devices.
//!
//! It writes nothing to a disk. Blocks are received on the heap, from the first byte that was not forgotten yet to a fixed
//! distance after it, are read in order, and forgotten.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use crate::manifest::ByteRange;
use crate::num::{to_u64, to_usize};
use crate::sink::store::{Buffers, FillError, Heap, Lease, Store};
use crate::sync::Lock;
use crate::sys::RangeLock;

/// The part of a file that is in memory, beginning with the first byte that is not forgotten.
#[derive(Debug)]
pub(crate) struct ReorderBuffer {
    capacity: u64,
    /// Whether what was read stays: the file is taken as a whole at the end.
    is_kept: bool,
    state: Arc<Lock<BufferState>>,
    buffers: Arc<Buffers>,
}

#[derive(Debug, Default)]
struct BufferState {
    /// The bytes before this offset were forgotten.
    forgotten: u64,
    lock: RangeLock<u64>,
    /// The committed bytes, by their first offset.
    kept: BTreeMap<u64, Arc<Heap>>,
}

impl ReorderBuffer {
    /// A buffer of `capacity` bytes, at the beginning of the file.
    pub(crate) fn new(capacity: u64) -> Self {
        Self { capacity, is_kept: false, state: Arc::default(), buffers: Arc::default() }
    }

    /// Room in memory for a file of at most `limit` bytes: nothing beyond them is leased, and all of it stays.
    pub(crate) fn for_memory(limit: u64) -> Self {
        Self { is_kept: true, ..Self::new(limit) }
    }

    /// Frees the bytes before this offset.
    pub(super) fn free(&self, before: u64) {
        let mut state = self.state.lock();
        state.forgotten = state.forgotten.max(before);
        let forgotten = state.forgotten;
        state.kept.retain(|start, heap| start + to_u64(heap.received().len()) > forgotten);
    }

    /// The committed piece that begins at `offset` or nearest before it, and where it begins.
    fn piece_before(&self, offset: u64) -> Option<(u64, Arc<Heap>)> {
        let state = self.state.lock();
        if offset < state.forgotten {
            return None;
        }
        state.kept.range(..=offset).next_back().map(|(start, heap)| (*start, Arc::clone(heap)))
    }
}

impl Store for ReorderBuffer {
    fn lease(&self, range: ByteRange) -> Option<Box<dyn Lease>> {
        let heap = Heap::new(&self.buffers, range.len())?;
        let mut state = self.state.lock();
        let is_within = range.start() >= state.forgotten
            && range.end() - state.forgotten <= self.capacity
            && state.lock.lend(range.start(), range.end());
        drop(state);
        is_within.then(|| -> Box<dyn Lease> {
            Box::new(ReorderLease { state: Arc::clone(&self.state), range, heap: Some(heap) })
        })
    }

    /// Its capacity bounds the memory already.
    fn is_buffered(&self) -> bool {
        false
    }

    /// Nothing outlives a transfer here.
    fn declare_filled(&self, _range: ByteRange) -> bool {
        false
    }

    fn is_filled(&self, range: ByteRange) -> bool {
        self.state.lock().lock.is_filled(range.start(), range.end())
    }

    fn read(&self, range: ByteRange, visit: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut next = range.start();
        while next < range.end() {
            // Without the lock while it is shown: a visitor may wait for the reader of a pipe.
            let (start, heap) = self.piece_before(next).ok_or_else(missing)?;
            let piece = heap.received().get(to_usize(next - start)..).unwrap_or_default();
            let piece = piece.get(..to_usize(range.end() - next)).unwrap_or(piece);
            if piece.is_empty() {
                return Err(missing());
            }
            visit(piece)?;
            next += to_u64(piece.len());
        }
        Ok(())
    }

    fn forget(&self, before: u64) {
        if !self.is_kept {
            self.free(before);
        }
    }
}

fn missing() -> io::Error {
    io::Error::other("read before it was received, or after it was forgotten")
}

/// The exclusive right to a range of the buffer.
#[derive(Debug)]
struct ReorderLease {
    state: Arc<Lock<BufferState>>,
    range: ByteRange,
    /// `None` once it is committed.
    heap: Option<Heap>,
}

impl Lease for ReorderLease {
    fn remaining(&self) -> u64 {
        self.heap.as_ref().map_or(0, Heap::remaining)
    }

    fn fill(&mut self, source: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>) -> Result<usize, FillError> {
        self.heap.as_mut().map_or(Ok(0), |heap| heap.fill(source))
    }

    fn received(&mut self) -> io::Result<&[u8]> {
        Ok(self.heap.as_ref().map(Heap::received).unwrap_or_default())
    }

    /// The buffer is the place.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn commit(mut self: Box<Self>) -> io::Result<()> {
        let Some(heap) = self.heap.take() else { return Ok(()) };
        let (start, end) = (self.range.start(), self.range.end());
        let filled = start + to_u64(heap.received().len());
        let mut state = self.state.lock();
        state.lock.fill(start, filled);
        state.lock.take_back(filled, end);
        if filled > start {
            state.kept.insert(start, Arc::new(heap));
        }
        Ok(())
    }
}

impl Drop for ReorderLease {
    fn drop(&mut self) {
        if self.heap.is_some() {
            self.state.lock().lock.take_back(self.range.start(), self.range.end());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::store::write;

    fn put(buffer: &ReorderBuffer, range: ByteRange, byte: u8) {
        write(buffer, range.start(), &vec![byte; to_usize(range.len())]).unwrap();
    }

    fn content(buffer: &ReorderBuffer, range: ByteRange) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        buffer.read(range, &mut |piece| io::Write::write_all(&mut bytes, piece))?;
        Ok(bytes)
    }

    #[test]
    fn bytes_can_be_read_from_their_commit_until_they_are_forgotten() {
        let buffer = ReorderBuffer::new(30);
        put(&buffer, ByteRange::new(10, 20), 2);
        assert!(content(&buffer, ByteRange::new(0, 20)).is_err(), "the beginning is missing");
        put(&buffer, ByteRange::new(0, 10), 1);
        assert_eq!(content(&buffer, ByteRange::new(8, 13)).unwrap(), [1, 1, 2, 2, 2]);
        assert!(content(&buffer, ByteRange::new(15, 21)).is_err(), "the end is missing");
        buffer.forget(12);
        assert!(content(&buffer, ByteRange::new(11, 13)).is_err());
        assert_eq!(content(&buffer, ByteRange::new(12, 14)).unwrap(), [2, 2]);
        assert_eq!(buffer.state.lock().kept.len(), 1);
        buffer.forget(20);
        buffer.forget(5);
        let state = buffer.state.lock();
        assert_eq!((state.kept.len(), state.forgotten), (0, 20));
    }

    #[test]
    fn nothing_is_leased_beyond_the_capacity_or_twice() {
        let buffer = ReorderBuffer::new(30);
        assert!(buffer.lease(ByteRange::new(30, 31)).is_none());
        let first = buffer.lease(ByteRange::new(0, 10)).unwrap();
        assert!(buffer.lease(ByteRange::new(9, 11)).is_none(), "leased");
        assert!(content(&buffer, ByteRange::new(0, 1)).is_err());
        drop(first);
        assert!(buffer.lease(ByteRange::new(9, 11)).is_some());
        put(&buffer, ByteRange::new(0, 10), 1);
        assert!(buffer.lease(ByteRange::new(0, 10)).is_none(), "filled");
        buffer.forget(10);
        assert!(buffer.lease(ByteRange::new(0, 10)).is_none(), "forgotten");
        assert!(buffer.is_filled(ByteRange::new(0, 10)), "forgotten, but it was there");
        assert!(buffer.lease(ByteRange::new(30, 40)).is_some(), "the buffer has moved on");
        buffer.forget(20);
        assert!(buffer.lease(ByteRange::new(10, 20)).is_none(), "forgotten without having been received");
    }

    #[test]
    fn commit_counts_the_received_bytes_and_frees_the_rest() {
        let buffer = ReorderBuffer::new(30);
        let mut lease = buffer.lease(ByteRange::new(0, 10)).unwrap();
        lease.fill(&mut |_| Ok(9)).unwrap();
        lease.flush().unwrap();
        lease.commit().unwrap();
        assert!(content(&buffer, ByteRange::new(0, 9)).is_ok());
        assert!(content(&buffer, ByteRange::new(0, 10)).is_err());
        assert!(buffer.lease(ByteRange::new(8, 10)).is_none());
        put(&buffer, ByteRange::new(9, 10), 1);
        buffer.forget(9);
        assert_eq!(buffer.state.lock().kept.len(), 1);
    }
}
