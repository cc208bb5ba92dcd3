//! A file that the caller wants as bytes: a reorder buffer that forgets nothing until all of it is taken.

use std::io;
use std::sync::Arc;

use crate::manifest::ByteRange;
use crate::num::{to_u64, to_usize};
use crate::sink::ordered::ReorderBuffer;
use crate::sink::store::{Store, write};

impl ReorderBuffer {
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
        self.read(ByteRange::new(0, len), &mut |piece| {
            self.free(end);
            bytes.extend_from_slice(piece);
            end = to_u64(bytes.len());
            Ok(())
        })?;
        self.free(end);
        Ok(bytes)
    }
}

/// Writes to a file in memory, in order.
#[derive(Debug)]
pub(super) struct MemoryWriter {
    store: Arc<ReorderBuffer>,
    position: u64,
}

impl MemoryWriter {
    pub(super) fn new(store: &Arc<ReorderBuffer>) -> Self {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_kept_until_they_are_taken() {
        let store = ReorderBuffer::for_memory(10);
        write(&store, 4, b"efghij").unwrap();
        store.forget(8);
        assert!(store.take(10).is_err(), "the beginning is missing");
        write(&store, 0, b"abcd").unwrap();
        assert_eq!(store.take(10).unwrap(), b"abcdefghij");
        assert!(store.take(10).is_err(), "once");
    }

    #[test]
    fn nothing_beyond_the_limit_is_received() {
        let store = ReorderBuffer::for_memory(10);
        assert!(store.lease(ByteRange::new(0, 11)).is_none());
        assert!(store.lease(ByteRange::new(0, 10)).is_some());
    }
}
