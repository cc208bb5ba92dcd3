//! The memory store: for a file that the caller wants as bytes.
//!
//! A reorder buffer that forgets nothing until all of it is taken.

use std::io;
use std::sync::Arc;

use crate::manifest::ByteRange;
use crate::num::{to_u64, to_usize};
use crate::sink::ordered::ReorderBuffer;
use crate::sink::store::{Lease, Store, write};

/// A file in memory.
#[derive(Debug)]
pub(crate) struct MemoryStore(ReorderBuffer);

impl MemoryStore {
    /// Room for a file of at most `limit` bytes: nothing beyond them is leased.
    pub(crate) fn new(limit: u64) -> Self {
        Self(ReorderBuffer::new(limit))
    }

    /// Takes the first `len` bytes, once.
    ///
    /// The pieces are freed as they are copied, so that the file is not in memory twice.
    ///
    /// # Errors
    /// Some of them were not received, or there is not enough memory.
    pub(crate) fn take(&self, len: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(to_usize(len)).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let mut end = 0;
        self.0.read(ByteRange::new(0, len), &mut |piece| {
            self.0.forget(end);
            bytes.extend_from_slice(piece);
            end = to_u64(bytes.len());
            Ok(())
        })?;
        self.0.forget(end);
        Ok(bytes)
    }
}

/// Writes to a file in memory, in order.
#[derive(Debug)]
pub(super) struct MemoryWriter {
    store: Arc<MemoryStore>,
    position: u64,
}

impl MemoryWriter {
    pub(super) fn new(store: &Arc<MemoryStore>) -> Self {
        Self { store: Arc::clone(store), position: 0 }
    }
}

impl io::Write for MemoryWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // The pieces follow each other, so only the limit can leave no place for one.
        write(&*self.store, self.position, bytes).map_err(|_| io::ErrorKind::FileTooLarge)?;
        self.position += to_u64(bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Store for MemoryStore {
    fn lease(&self, range: ByteRange) -> Option<Box<dyn Lease>> {
        self.0.lease(range)
    }

    fn is_buffered(&self) -> bool {
        self.0.is_buffered()
    }

    fn declare_filled(&self, range: ByteRange) -> bool {
        self.0.declare_filled(range)
    }

    fn is_filled(&self, range: ByteRange) -> bool {
        self.0.is_filled(range)
    }

    fn read(&self, range: ByteRange, visit: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        self.0.read(range, visit)
    }

    /// It is taken at the end.
    fn forget(&self, _before: u64) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::write;

    #[test]
    fn bytes_are_kept_until_they_are_taken() {
        let store = MemoryStore::new(10);
        write(&store, 4, b"efghij").unwrap();
        store.forget(8);
        assert!(store.take(10).is_err(), "the beginning is missing");
        write(&store, 0, b"abcd").unwrap();
        assert_eq!(store.take(10).unwrap(), b"abcdefghij");
        assert!(store.take(10).is_err(), "once");
    }

    #[test]
    fn nothing_beyond_the_limit_is_received() {
        let store = MemoryStore::new(10);
        assert!(store.lease(ByteRange::new(0, 11)).is_none());
        assert!(store.lease(ByteRange::new(0, 10)).is_some());
    }
}
