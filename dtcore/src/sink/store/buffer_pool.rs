//! Heap buffers for blocks that cannot be received in their place; they are reused.

use std::sync::Arc;
use std::{fmt, io};

use super::FillError;
use crate::num::{to_u64, to_usize};
use crate::sync::Lock;

/// How many bytes of unused buffers are kept at most: a new buffer costs a page fault for every 4 KiB.
const KEPT: usize = 16 << 20;

/// The unused buffers, and how many bytes may be in use.
#[derive(Debug)]
pub(crate) struct Buffers {
    shelf: Lock<Shelf>,
    /// How many bytes may be in use at once.
    most: u64,
}

#[derive(Debug, Default)]
struct Shelf {
    buffers: Vec<Vec<u8>>,
    /// The size of all of them.
    bytes: usize,
    /// The length of all ranges that are being received.
    lent: u64,
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

impl Default for Buffers {
    /// Buffers without a limit: the caller bounds them.
    fn default() -> Self {
        Self::with_room(u64::MAX)
    }
}

impl Buffers {
    /// Buffers for `most` bytes at once, but always for at least one range.
    pub(crate) fn with_room(most: u64) -> Self {
        Self { shelf: Lock::default(), most }
    }

    /// Takes room for `len` more bytes, if there is room.
    fn lend(&self, len: u64) -> bool {
        let mut state = self.shelf.lock();
        let lent = state.lent + len;
        let has_room = state.lent == 0 || lent <= self.most;
        if has_room {
            state.lent = lent;
        }
        has_room
    }

    /// How many bytes are in use.
    #[cfg(test)]
    pub(super) fn lent(&self) -> u64 {
        self.shelf.lock().lent
    }

    fn take(self: &Arc<Self>, len: usize) -> Buffer {
        let used = self.shelf.lock().pop();
        // All but the last block of a file have the same length, so that a used buffer usually fits.
        let bytes = if used.len() < len { vec![0; len] } else { used };
        Buffer { bytes, home: Arc::clone(self) }
    }
}

/// A buffer that is returned when it is dropped.
struct Buffer {
    bytes: Vec<u8>,
    home: Arc<Buffers>,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.home.shelf.lock().push(std::mem::take(&mut self.bytes));
    }
}

/// A range that is received into a buffer, which is taken with the first byte.
pub(crate) struct Heap {
    buffers: Arc<Buffers>,
    buffer: Option<Buffer>,
    len: usize,
    received: usize,
}

impl Heap {
    /// Room for `len` bytes; `None` if there is not enough at the moment.
    pub(crate) fn new(buffers: &Arc<Buffers>, len: u64) -> Option<Self> {
        let has_room = buffers.lend(len);
        has_room.then(|| Self { buffers: Arc::clone(buffers), buffer: None, len: to_usize(len), received: 0 })
    }

    fn len(&self) -> u64 {
        to_u64(self.len)
    }

    /// How many bytes are still to be received.
    pub(crate) fn remaining(&self) -> u64 {
        to_u64(self.len - self.received)
    }

    /// As [`Lease::fill`](super::Lease::fill).
    pub(crate) fn fill(
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

    /// The bytes received so far.
    pub(crate) fn received(&self) -> &[u8] {
        self.buffer.as_ref().and_then(|buffer| buffer.bytes.get(..self.received)).unwrap_or_default()
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        let len = self.len();
        let mut state = self.buffers.shelf.lock();
        state.lent -= len;
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
    fn buffer_is_taken_with_the_first_byte_and_reused_without_showing_old_bytes() {
        let buffers = Arc::new(Buffers::default());
        let mut first = Heap::new(&buffers, 1000).unwrap();
        assert!(first.buffer.is_none());
        fill(&mut first, 1);
        drop(first);
        assert_eq!(buffers.shelf.lock().bytes, 1000);
        let mut second = Heap::new(&buffers, 10).unwrap();
        assert_eq!(second.received(), b"");
        fill(&mut second, 2);
        assert_eq!(buffers.shelf.lock().bytes, 0, "reused");
        assert_eq!(second.received(), [2; 10]);
        assert_eq!(second.remaining(), 0);
    }

    #[test]
    fn unused_buffers_are_bounded() {
        let buffers = Arc::new(Buffers::default());
        let many: Vec<_> = (0..5).map(|_| buffers.take(5 << 20)).collect();
        drop(many);
        assert_eq!(buffers.shelf.lock().bytes, 15 << 20);
    }

    #[test]
    fn room_is_bounded_but_one_range_always_fits() {
        let buffers = Arc::new(Buffers::with_room(1000));
        let large = Heap::new(&buffers, 2000).unwrap();
        assert!(Heap::new(&buffers, 1).is_none());
        drop(large);
        let mut some: Vec<_> = (0..5).map(|_| Heap::new(&buffers, 200).unwrap()).collect();
        assert!(Heap::new(&buffers, 1).is_none());
        fill(&mut some[0], 1);
        some.pop();
        assert!(Heap::new(&buffers, 201).is_none());
        assert!(Heap::new(&buffers, 200).is_some());
    }
}
