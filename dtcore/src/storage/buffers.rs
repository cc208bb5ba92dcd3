//! Heap buffers for blocks that cannot be received where they stay, used again and again.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::store::FillError;

/// How many bytes of unused buffers are kept at most: a fresh buffer costs a page fault for every 4 KiB.
const KEPT: usize = 16 << 20;

/// Buffers that nobody uses at the moment.
#[derive(Debug, Default)]
pub(super) struct Buffers(Mutex<Shelf>);

#[derive(Debug, Default)]
struct Shelf {
    buffers: Vec<Vec<u8>>,
    /// How large all of them are.
    bytes: usize,
}

impl Shelf {
    fn pop(&mut self) -> Vec<u8> {
        let buffer = self.buffers.pop().unwrap_or_default();
        self.bytes -= buffer.len();
        buffer
    }

    fn push(&mut self, buffer: Vec<u8>) {
        if self.bytes + buffer.len() <= KEPT {
            self.bytes += buffer.len();
            self.buffers.push(buffer);
        }
    }
}

impl Buffers {
    fn take(self: &Arc<Self>, len: usize) -> Buffer {
        let used = self.shelf().pop();
        // All but the last block of a file are equally long, so that a used one mostly fits.
        let bytes = if used.len() < len { vec![0; len] } else { used };
        Buffer { bytes, home: Arc::clone(self) }
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        // A panic in between would at worst have miscounted what is kept.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A buffer that goes back when it is dropped.
struct Buffer {
    bytes: Vec<u8>,
    home: Arc<Buffers>,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.home.shelf().push(std::mem::take(&mut self.bytes));
    }
}

/// A range that is received into a buffer, which is taken when the first byte comes.
pub(super) struct Heap {
    buffers: Arc<Buffers>,
    buffer: Option<Buffer>,
    len: usize,
    received: usize,
}

impl Heap {
    /// Room for `len` bytes; `None` if no machine has that much.
    pub(super) fn new(buffers: &Arc<Buffers>, len: u64) -> Option<Self> {
        let len = usize::try_from(len).ok()?;
        Some(Self { buffers: Arc::clone(buffers), buffer: None, len, received: 0 })
    }

    /// How long the range is.
    pub(super) fn len(&self) -> u64 {
        self.len.try_into().unwrap_or(u64::MAX)
    }

    /// How many bytes are still to be received.
    pub(super) fn remaining(&self) -> u64 {
        (self.len - self.received).try_into().unwrap_or(u64::MAX)
    }

    /// As [`Lease::fill`](super::Lease::fill).
    pub(super) fn fill(
        &mut self,
        source: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> Result<usize, FillError> {
        let buffer = self.buffer.get_or_insert_with(|| self.buffers.take(self.len));
        let space = buffer.bytes.get_mut(self.received..self.len).unwrap_or_default();
        let room = space.len();
        let n = source(space).map_err(FillError::Source)?.min(room);
        self.received += n;
        Ok(n)
    }

    /// What was received so far.
    pub(super) fn received(&self) -> &[u8] {
        self.buffer.as_ref().and_then(|buffer| buffer.bytes.get(..self.received)).unwrap_or_default()
    }

    /// Throws away what was received.
    pub(super) fn restart(&mut self) {
        self.received = 0;
    }
}

impl fmt::Debug for Heap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Heap({} of {} bytes)", self.received, self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(heap: &mut Heap, byte: u8) {
        let mut source = |space: &mut [u8]| {
            space.fill(byte);
            Ok(space.len())
        };
        heap.fill(&mut source).unwrap();
    }

    #[test]
    fn a_buffer_is_taken_late_used_again_and_shows_nothing_of_its_former_life() {
        let buffers = Arc::new(Buffers::default());
        let mut first = Heap::new(&buffers, 1000).unwrap();
        assert!(first.buffer.is_none());
        fill(&mut first, 1);
        drop(first);
        assert_eq!(buffers.shelf().bytes, 1000);
        let mut second = Heap::new(&buffers, 10).unwrap();
        assert_eq!(second.received(), b"");
        fill(&mut second, 2);
        assert_eq!(buffers.shelf().bytes, 0, "used again");
        assert_eq!(second.received(), [2; 10]);
        second.restart();
        assert_eq!(second.received(), b"");
        assert_eq!(second.remaining(), 10);
    }

    #[test]
    fn not_more_than_enough_is_kept() {
        let buffers = Arc::new(Buffers::default());
        let many: Vec<_> = (0..5).map(|_| buffers.take(5 << 20)).collect();
        drop(many);
        assert_eq!(buffers.shelf().bytes, 15 << 20);
    }
}
