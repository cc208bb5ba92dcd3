//! The memory window: a store for outputs that are written in order, such as pipes and devices.
//!
//! Nothing of it is on a disk. Blocks are received on the heap, somewhere between the first byte that was not
//! forgotten yet and a fixed distance behind it, are read in order, and forgotten.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::manifest::ByteRange;
use crate::sink::store::{Buffers, Heap};
use crate::sink::store::{FillError, Lease, Store, Writer, incomplete};
use crate::sys::RangeLock;

/// The part of a file that is kept in memory, from what was forgotten on.
#[derive(Debug)]
pub(crate) struct ReorderBuffer {
    capacity: u64,
    state: Arc<Mutex<State>>,
    buffers: Arc<Buffers>,
}

#[derive(Debug, Default)]
struct State {
    /// What is before this offset was forgotten.
    forgotten: u64,
    lock: RangeLock<u64>,
    /// What was committed, by where it begins.
    kept: BTreeMap<u64, Arc<Heap>>,
}

impl ReorderBuffer {
    /// A window of `capacity` bytes, at the beginning of the file.
    pub(crate) fn new(capacity: u64) -> Self {
        Self { capacity, state: Arc::default(), buffers: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// What was committed at `offset` and behind it, and where that begins.
    fn kept(&self, offset: u64) -> Option<(u64, Arc<Heap>)> {
        let state = self.state();
        if offset < state.forgotten {
            return None;
        }
        state.kept.range(..=offset).next_back().map(|(start, heap)| (*start, Arc::clone(heap)))
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // Whatever a panic left undone is a range that stays lent; none is shown that was not committed.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store for ReorderBuffer {
    /// The window is as large as it is: whatever the length, there is room for a part of it at a time.
    fn grow(&self, _len: u64) -> io::Result<()> {
        Ok(())
    }

    /// Bytes come in leases only.
    fn writer(&self, _range: ByteRange) -> Option<Box<dyn Writer>> {
        None
    }

    fn lease(&self, range: ByteRange) -> Option<Box<dyn Lease>> {
        let heap = Heap::new(&self.buffers, range.len())?;
        let mut state = self.state();
        let is_within = range.start() >= state.forgotten
            && range.end() <= state.forgotten.saturating_add(self.capacity)
            && state.lock.lend(range.start(), range.end());
        drop(state);
        is_within.then(|| -> Box<dyn Lease> {
            Box::new(ReorderLease { state: Arc::clone(&self.state), range, heap: Some(heap) })
        })
    }

    /// As many bytes as it is large, and no more.
    fn is_buffered(&self) -> bool {
        false
    }

    /// Nothing outlives a transfer here.
    fn declare_filled(&self, _range: ByteRange) -> bool {
        false
    }

    fn read(&self, range: ByteRange, visit: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut next = range.start();
        while next < range.end() {
            // Without the lock while it is shown: a visitor may wait for who reads a pipe.
            let (start, heap) = self.kept(next).ok_or_else(not_there)?;
            let piece = usize::try_from(next - start)
                .ok()
                .and_then(|skip| heap.received().get(skip..))
                .filter(|piece| !piece.is_empty())
                .ok_or_else(not_there)?;
            let most = usize::try_from(range.end() - next).unwrap_or(usize::MAX);
            let piece = piece.get(..most).unwrap_or(piece);
            visit(piece)?;
            next = next.saturating_add(piece.len().try_into().unwrap_or(u64::MAX));
        }
        Ok(())
    }

    fn forget(&self, before: u64) {
        let mut state = self.state();
        state.forgotten = state.forgotten.max(before);
        let forgotten = state.forgotten;
        state.kept.retain(|start, heap| start.saturating_add(heap.len()) > forgotten);
    }
}

fn not_there() -> io::Error {
    io::Error::other("read before it was received, or after it was forgotten")
}

/// The exclusive right to a range of the window.
#[derive(Debug)]
struct ReorderLease {
    state: Arc<Mutex<State>>,
    range: ByteRange,
    /// There until it is committed.
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

    fn restart(&mut self) {
        if let Some(heap) = &mut self.heap {
            heap.restart();
        }
    }

    fn commit(mut self: Box<Self>) -> io::Result<()> {
        let heap = self.heap.take_if(|heap| heap.remaining() == 0).ok_or_else(incomplete)?;
        let mut state = lock(&self.state);
        state.lock.fill(self.range.start(), self.range.end());
        state.kept.insert(self.range.start(), Arc::new(heap));
        Ok(())
    }
}

impl Drop for ReorderLease {
    fn drop(&mut self) {
        if self.heap.is_some() {
            lock(&self.state).lock.take_back(self.range.start(), self.range.end());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(window: &ReorderBuffer, range: ByteRange, byte: u8) -> Option<()> {
        let mut lease = window.lease(range)?;
        let mut source = |space: &mut [u8]| {
            space.fill(byte);
            Ok(space.len())
        };
        lease.fill(&mut source).unwrap();
        lease.commit().unwrap();
        Some(())
    }

    fn content(window: &ReorderBuffer, range: ByteRange) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut keep = |piece: &[u8]| {
            bytes.extend_from_slice(piece);
            Ok(())
        };
        window.read(range, &mut keep)?;
        Ok(bytes)
    }

    #[test]
    fn bytes_are_there_from_their_commit_until_they_are_forgotten() {
        let window = ReorderBuffer::new(30);
        put(&window, ByteRange::new(10, 20), 2).unwrap();
        assert!(content(&window, ByteRange::new(0, 20)).is_err(), "the beginning is missing");
        put(&window, ByteRange::new(0, 10), 1).unwrap();
        assert_eq!(content(&window, ByteRange::new(8, 13)).unwrap(), [1, 1, 2, 2, 2]);
        assert!(content(&window, ByteRange::new(15, 21)).is_err(), "the end is missing");
        window.forget(12);
        assert!(content(&window, ByteRange::new(11, 13)).is_err());
        assert_eq!(content(&window, ByteRange::new(12, 14)).unwrap(), [2, 2]);
        assert_eq!(window.state().kept.len(), 1);
        window.forget(20);
        window.forget(5);
        let state = window.state();
        assert_eq!((state.kept.len(), state.forgotten), (0, 20));
    }

    #[test]
    fn nothing_is_leased_beyond_the_window_twice_or_again() {
        let window = ReorderBuffer::new(30);
        assert!(window.lease(ByteRange::new(30, 31)).is_none());
        let first = window.lease(ByteRange::new(0, 10)).unwrap();
        assert!(window.lease(ByteRange::new(9, 11)).is_none(), "leased");
        assert!(content(&window, ByteRange::new(0, 1)).is_err());
        drop(first);
        assert!(window.lease(ByteRange::new(9, 11)).is_some());
        put(&window, ByteRange::new(0, 10), 1).unwrap();
        assert!(window.lease(ByteRange::new(0, 10)).is_none(), "filled");
        window.forget(10);
        assert!(window.lease(ByteRange::new(0, 10)).is_none(), "forgotten");
        assert!(window.lease(ByteRange::new(30, 40)).is_some(), "the window has moved on");
        window.forget(20);
        assert!(window.lease(ByteRange::new(10, 20)).is_none(), "given up without having come");
    }

    #[test]
    fn a_lease_that_is_not_complete_is_no_part_of_the_file() {
        let window = ReorderBuffer::new(30);
        let mut lease = window.lease(ByteRange::new(0, 10)).unwrap();
        lease.fill(&mut |_| Ok(9)).unwrap();
        assert!(lease.commit().is_err());
        assert!(content(&window, ByteRange::new(0, 1)).is_err());
        assert!(window.lease(ByteRange::new(0, 10)).is_some(), "and its range is free again");
    }
}
