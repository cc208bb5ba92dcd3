//! The writing engine: bytes are received into a buffer and written at their offset.
//!
//! It asks nothing of the file system but positioned writes, so it serves where mapping or preallocation cannot.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::{FillError, Lease, Store, Writer, incomplete, truncated};
use crate::manifest::ByteRange;
use crate::sink::store::{Buffers, Heap};
use crate::sys::{RangeLock, filesystem};

/// The buffer of a writer or reader: with 255 streams 32 MiB in all, and a system call's cost already vanishes.
const BUFFER: usize = 128 << 10;

/// A file that is written at offsets.
#[derive(Debug)]
pub(crate) struct PwriteStore {
    file: Arc<Ledgered>,
    buffers: Arc<Buffers>,
}

/// A file and who may write what of it.
#[derive(Debug)]
struct Ledgered {
    file: File,
    lock: Mutex<RangeLock<u64>>,
    /// How many bytes from the beginning were reserved. The file is never shorter, unless another process cuts it.
    reserved: AtomicU64,
}

impl Ledgered {
    fn lock(&self) -> MutexGuard<'_, RangeLock<u64>> {
        // The lock's methods leave it whole at every step, so a poisoned lock holds a whole lock.
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails if another process has cut the file: what is written behind its end would leave a hole before it.
    fn check(&self) -> io::Result<()> {
        let len = self.file.metadata()?.len();
        if len < self.reserved.load(Ordering::Relaxed) { Err(truncated()) } else { Ok(()) }
    }

    /// The exclusive right to `range`, all of which must have been reserved.
    fn lend(self: &Arc<Self>, range: ByteRange) -> Option<Lent> {
        let is_reserved = range.end() <= self.reserved.load(Ordering::Relaxed);
        let is_lent = is_reserved && self.lock().lend(range.start(), range.end());
        is_lent.then(|| Lent { file: Arc::clone(self), range })
    }
}

/// The exclusive right to what is left of a range.
#[derive(Debug)]
struct Lent {
    file: Arc<Ledgered>,
    range: ByteRange,
}

impl Lent {
    /// Declares the next `n` bytes filled.
    fn fill(&mut self, n: u64) {
        let next = self.range.start().saturating_add(n).min(self.range.end());
        self.file.lock().fill(self.range.start(), next);
        self.range = ByteRange::new(next, self.range.end());
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.file.lock().take_back(self.range.start(), self.range.end());
    }
}

impl PwriteStore {
    pub(crate) fn new(file: File) -> io::Result<Self> {
        let reserved = AtomicU64::new(file.metadata()?.len());
        let file = Arc::new(Ledgered { file, lock: Mutex::default(), reserved });
        Ok(Self { file, buffers: Arc::default() })
    }
}

impl Store for PwriteStore {
    fn grow(&self, len: u64) -> io::Result<()> {
        let file = &self.file.file;
        let present = file.metadata()?.len();
        if len == 0 || len < present {
            return Ok(());
        }
        filesystem::ensure(file, len)?;
        if filesystem::is_tmpfs(file)? {
            // Its pages would be zeroed first and written then. It says that it is full when they are written.
            file.set_len(len)?;
            self.file.reserved.fetch_max(len, Ordering::Relaxed);
            return Ok(());
        }
        // From the beginning on: what an earlier transfer left may have its length and not its room.
        match fallocate(file, FallocateFlags::empty(), 0, len) {
            Ok(()) => {}
            // This file system cannot reserve: then a full disk shows when the bytes are written, as an error too.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => file.set_len(len)?,
            Err(error) => return Err(error.into()),
        }
        self.file.reserved.fetch_max(len, Ordering::Relaxed);
        Ok(())
    }

    fn writer(&self, range: ByteRange) -> Option<Box<dyn Writer>> {
        let end = self.file.reserved.load(Ordering::Relaxed).min(range.end());
        let lent = self.file.lend(ByteRange::new(range.start(), end))?;
        Some(Box::new(PwriteWriter { lent, buffer: Vec::new() }))
    }

    fn lease(&self, range: ByteRange) -> Option<Box<dyn Lease>> {
        let heap = Heap::new(&self.buffers, range.len())?;
        Some(Box::new(PwriteLease { lent: self.file.lend(range)?, heap }))
    }

    fn is_buffered(&self) -> bool {
        true
    }

    fn declare_filled(&self, range: ByteRange) -> bool {
        self.file.lend(range).map(|mut lent| lent.fill(range.len())).is_some()
    }

    fn read(&self, range: ByteRange, visit: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        if !self.file.lock().is_filled(range.start(), range.end()) {
            return Err(io::Error::other("read before it was written"));
        }
        let mut buffer = vec![0; capped(range.len())];
        let mut next = range.start();
        while next < range.end() {
            let piece = buffer.get_mut(..capped(range.end() - next)).unwrap_or_default();
            self.file.file.read_exact_at(piece, next)?;
            visit(piece)?;
            next = next.saturating_add(offset(piece.len()));
        }
        Ok(())
    }
}

struct PwriteWriter {
    /// What is still to be written.
    lent: Lent,
    buffer: Vec<u8>,
}

impl Writer for PwriteWriter {
    fn remaining(&self) -> u64 {
        self.lent.range.len()
    }

    fn fill(&mut self, source: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>) -> Result<usize, FillError> {
        let range = self.lent.range;
        if self.buffer.is_empty() {
            self.buffer = vec![0; capped(range.len())];
        }
        let space = self.buffer.get_mut(..capped(range.len())).unwrap_or_default();
        let n = source(space).map_err(FillError::Source)?;
        let n = n.min(space.len());
        let bytes = space.get(..n).unwrap_or_default();
        self.lent.file.check().map_err(FillError::Store)?;
        self.lent.file.file.write_all_at(bytes, range.start()).map_err(FillError::Store)?;
        self.lent.fill(offset(n));
        Ok(n)
    }
}

/// The exclusive right to a range, which is written as a whole when it is committed.
#[derive(Debug)]
struct PwriteLease {
    lent: Lent,
    heap: Heap,
}

impl Lease for PwriteLease {
    fn remaining(&self) -> u64 {
        self.heap.remaining()
    }

    fn fill(&mut self, source: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>) -> Result<usize, FillError> {
        self.heap.fill(source)
    }

    fn received(&mut self) -> io::Result<&[u8]> {
        Ok(self.heap.received())
    }

    fn restart(&mut self) {
        self.heap.restart();
    }

    fn commit(mut self: Box<Self>) -> io::Result<()> {
        if self.remaining() > 0 {
            return Err(incomplete());
        }
        let range = self.lent.range;
        self.lent.file.check()?;
        self.lent.file.file.write_all_at(self.heap.received(), range.start())?;
        self.lent.fill(range.len());
        Ok(())
    }
}

fn capped(len: u64) -> usize {
    usize::try_from(len).map_or(BUFFER, |len| len.min(BUFFER))
}

fn offset(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_file_that_has_its_length_gets_its_room_and_keeps_its_bytes() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        file.write_all_at(b"received before", 1000).unwrap();
        PwriteStore::new(file.try_clone().unwrap()).unwrap().grow(1 << 20).unwrap();
        assert!(file.metadata().unwrap().blocks() >= 2048);
        let mut bytes = [0; 15];
        file.read_exact_at(&mut bytes, 1000).unwrap();
        assert_eq!(&bytes, b"received before");
    }

    #[test]
    fn a_file_that_was_cut_is_not_written_behind_its_end() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1000).unwrap();
        let store = PwriteStore::new(file.try_clone().unwrap()).unwrap();
        let mut lease = store.lease(ByteRange::new(0, 10)).unwrap();
        let mut writer = store.writer(ByteRange::new(10, 20)).unwrap();
        lease.fill(&mut |_| Ok(10)).unwrap();
        file.set_len(999).unwrap();
        assert_eq!(lease.commit().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(matches!(writer.fill(&mut |_| Ok(1)), Err(FillError::Store(_))));
        assert!(store.lease(ByteRange::new(990, 1000)).is_some(), "the place is there, the file is not");
    }

    #[test]
    fn bytes_have_one_writer_and_are_read_when_they_are_written() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1000).unwrap();
        let store = PwriteStore::new(file).unwrap();
        let (mut nobody, first) = (|_: &[u8]| Ok(()), ByteRange::new(0, 10));
        let mut writer = store.writer(ByteRange::new(0, 100)).unwrap();
        assert!(store.writer(ByteRange::new(99, 200)).is_none());
        assert!(store.lease(ByteRange::new(99, 200)).is_none());
        assert!(store.read(first, &mut nobody).is_err());
        writer.fill(&mut |_| Ok(10)).unwrap();
        drop(writer);
        assert!(store.read(first, &mut nobody).is_ok());
        assert!(store.lease(ByteRange::new(9, 20)).is_none(), "written bytes are never leased");
        assert!(store.lease(ByteRange::new(10, 20)).is_some());
        assert!(store.lease(ByteRange::new(990, 1001)).is_none(), "nor what was not reserved");
    }
}
