//! The writing engine: bytes are received into a buffer and written at their offset.
//!
//! It requires nothing of the file system but positioned writes, so it works where mapping or preallocation does not.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::{Buffers, FillError, Heap, Lease, Store, truncated};
use crate::manifest::ByteRange;
use crate::num::{to_u64, to_usize};
use crate::sync::Lock;
use crate::sys::{RangeLock, filesystem};

/// The buffer of a reader: the cost of a system call is negligible with it.
const BUFFER: usize = 128 << 10;

/// A file that is written at offsets.
#[derive(Debug)]
pub(crate) struct PwriteStore {
    file: Arc<LockedFile>,
    buffers: Arc<Buffers>,
}

/// A file and the ranges of it that are leased or filled.
#[derive(Debug)]
struct LockedFile {
    file: File,
    lock: Lock<RangeLock<u64>>,
    /// How many bytes from the beginning were reserved, if the size is known. The file is never shorter, unless another process
    /// truncates it.
    reserved: Option<u64>,
}

impl LockedFile {
    /// Fails if another process has truncated the file: a write beyond its end would leave a hole before it.
    fn check(&self) -> io::Result<()> {
        let len = self.file.metadata()?.len();
        if self.reserved.is_some_and(|reserved| len < reserved) { Err(truncated()) } else { Ok(()) }
    }

    /// The exclusive right to `range`, all of which must have been reserved.
    fn lend(self: &Arc<Self>, range: ByteRange) -> Option<Lent> {
        let is_reserved = self.reserved.is_none_or(|reserved| range.end() <= reserved);
        let is_lent = is_reserved && self.lock.lock().lend(range.start(), range.end());
        is_lent.then(|| Lent { file: Arc::clone(self), range })
    }
}

/// The exclusive right to the rest of a range.
#[derive(Debug)]
struct Lent {
    file: Arc<LockedFile>,
    range: ByteRange,
}

impl Lent {
    /// Declares the next `n` bytes filled, which the range has.
    fn fill(&mut self, n: u64) {
        let next = self.range.start() + n;
        self.file.lock.lock().fill(self.range.start(), next);
        self.range = ByteRange::new(next, self.range.end());
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.file.lock.lock().take_back(self.range.start(), self.range.end());
    }
}

impl PwriteStore {
    /// A store with room for `len` bytes.
    ///
    /// Where the file system can say so, a full disk is an error here and not later.
    pub(crate) fn new(file: File, len: u64) -> io::Result<Self> {
        reserve(&file, len)?;
        Ok(Self::with_reserved(file, Some(len)))
    }

    /// A store for a file whose size is not known: it grows with every write.
    pub(crate) fn of_unknown_size(file: File) -> Self {
        Self::with_reserved(file, None)
    }

    /// How many bytes the ranges have whose bytes are in buffers.
    #[cfg(test)]
    pub(crate) fn buffered(&self) -> u64 {
        self.buffers.lent()
    }

    fn with_reserved(file: File, reserved: Option<u64>) -> Self {
        let file = Arc::new(LockedFile { file, lock: Lock::default(), reserved });
        Self { file, buffers: Arc::default() }
    }
}

/// Reserves room for the first `len` bytes of `file`.
fn reserve(file: &File, len: u64) -> io::Result<()> {
    filesystem::ensure_space(file, len)?;
    let extend = || if file.metadata()?.len() < len { file.set_len(len) } else { Ok(()) };
    if len == 0 || filesystem::is_tmpfs(file)? {
        // Preallocation would zero the pages of tmpfs before they are written. A full tmpfs is reported by the writes.
        return extend();
    }
    // From the beginning: a file left by an earlier transfer may have its length without having its room.
    match fallocate(file, FallocateFlags::empty(), 0, len) {
        // This file system cannot reserve: then a full disk is reported by the writes, too.
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => extend(),
        result => Ok(result?),
    }
}

impl Store for PwriteStore {
    fn lease(&self, range: ByteRange) -> Option<Box<dyn Lease>> {
        let heap = Heap::new(&self.buffers, range.len())?;
        Some(Box::new(PwriteLease { lent: self.file.lend(range)?, state: WriteState::Filling(heap) }))
    }

    fn is_buffered(&self) -> bool {
        true
    }

    fn declare_filled(&self, range: ByteRange) -> bool {
        self.file.lend(range).map(|mut lent| lent.fill(range.len())).is_some()
    }

    fn is_filled(&self, range: ByteRange) -> bool {
        self.file.lock.lock().is_filled(range.start(), range.end())
    }

    fn read(&self, range: ByteRange, visit: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        if !self.is_filled(range) {
            return Err(io::Error::other("read before it was written"));
        }
        let mut buffer = vec![0; capped(range.len())];
        let mut next = range.start();
        while next < range.end() {
            let piece = buffer.get_mut(..capped(range.end() - next)).unwrap_or_default();
            self.file.file.read_exact_at(piece, next)?;
            visit(piece)?;
            next += to_u64(piece.len());
        }
        Ok(())
    }
}

/// The exclusive right to a range, which is written by a single call.
#[derive(Debug)]
struct PwriteLease {
    lent: Lent,
    state: WriteState,
}

#[derive(Debug)]
enum WriteState {
    /// The bytes are in a buffer.
    Filling(Heap),
    /// So many bytes are in the file, and do not count yet.
    Written(u64),
}

impl Lease for PwriteLease {
    fn remaining(&self) -> u64 {
        match &self.state {
            WriteState::Filling(heap) => heap.remaining(),
            WriteState::Written(_) => 0,
        }
    }

    fn fill(&mut self, source: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>) -> Result<usize, FillError> {
        match &mut self.state {
            WriteState::Filling(heap) => heap.fill(source),
            WriteState::Written(_) => Ok(0),
        }
    }

    fn received(&mut self) -> io::Result<&[u8]> {
        Ok(match &self.state {
            WriteState::Filling(heap) => heap.received(),
            WriteState::Written(_) => &[],
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        if let WriteState::Filling(heap) = &self.state {
            let (file, bytes) = (&self.lent.file, heap.received());
            file.check()?;
            file.file.write_all_at(bytes, self.lent.range.start())?;
            self.state = WriteState::Written(to_u64(bytes.len()));
        }
        Ok(())
    }

    fn commit(mut self: Box<Self>) -> io::Result<()> {
        self.flush()?;
        if let WriteState::Written(n) = self.state {
            self.lent.fill(n);
        }
        Ok(())
    }
}

fn capped(len: u64) -> usize {
    to_usize(len).min(BUFFER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::store::write;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn file_of_full_length_gets_its_room_and_keeps_its_bytes() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        file.write_all_at(b"received before", 1000).unwrap();
        PwriteStore::new(file.try_clone().unwrap(), 1 << 20).unwrap();
        assert!(file.metadata().unwrap().blocks() >= 2048);
        let mut bytes = [0; 15];
        file.read_exact_at(&mut bytes, 1000).unwrap();
        assert_eq!(&bytes, b"received before");
    }

    #[test]
    fn longer_file_is_not_shortened() {
        for folder in [std::env::temp_dir(), "/dev/shm".into()] {
            let file = tempfile::tempfile_in(folder).unwrap();
            file.set_len(1000).unwrap();
            PwriteStore::new(file.try_clone().unwrap(), 10).unwrap();
            assert_eq!(file.metadata().unwrap().len(), 1000);
        }
    }

    #[test]
    fn truncated_file_is_not_written_beyond_its_end() {
        let file = tempfile::tempfile().unwrap();
        let store = PwriteStore::new(file.try_clone().unwrap(), 1000).unwrap();
        let mut lease = store.lease(ByteRange::new(0, 10)).unwrap();
        lease.fill(&mut |_| Ok(10)).unwrap();
        file.set_len(999).unwrap();
        assert_eq!(lease.flush().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(lease.commit().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(store.lease(ByteRange::new(990, 1000)).is_some(), "the place is there, the file is not");
    }

    #[test]
    fn flushed_bytes_are_in_the_file_and_do_not_count_yet() {
        let file = tempfile::tempfile().unwrap();
        let store = PwriteStore::new(file.try_clone().unwrap(), 1000).unwrap();
        let range = ByteRange::new(10, 13);
        let mut lease = store.lease(range).unwrap();
        lease.fill(&mut |space| io::Read::read(&mut &b"abc"[..], space)).unwrap();
        lease.flush().unwrap();
        assert_eq!((lease.remaining(), lease.received().unwrap()), (0, &b""[..]));
        let mut bytes = [0; 3];
        file.read_exact_at(&mut bytes, 10).unwrap();
        assert_eq!(&bytes, b"abc");
        assert!(!store.is_filled(range));
        assert!(store.lease(range).is_none(), "still leased");
        lease.commit().unwrap();
        assert!(store.is_filled(range));
    }

    #[test]
    fn bytes_have_one_writer_and_can_be_read_once_written() {
        let store = PwriteStore::new(tempfile::tempfile().unwrap(), 1000).unwrap();
        let mut ignore = |_: &[u8]| Ok(());
        let lease = store.lease(ByteRange::new(0, 100)).unwrap();
        assert!(store.lease(ByteRange::new(99, 200)).is_none());
        assert!(store.read(ByteRange::new(0, 10), &mut ignore).is_err());
        drop(lease);
        write(&store, 0, &[1; 10]).unwrap();
        assert!(store.read(ByteRange::new(0, 10), &mut ignore).is_ok());
        assert!(store.lease(ByteRange::new(9, 20)).is_none(), "written bytes are never leased");
        assert!(store.lease(ByteRange::new(10, 20)).is_some());
        assert!(store.lease(ByteRange::new(990, 1001)).is_none(), "nor bytes that were not reserved");
    }

    #[test]
    fn store_of_unknown_size_grows_with_every_write() {
        let file = tempfile::tempfile().unwrap();
        let store = PwriteStore::of_unknown_size(file.try_clone().unwrap());
        write(&store, 0, b"abc").unwrap();
        write(&store, 3, b"defg").unwrap();
        assert_eq!(file.metadata().unwrap().len(), 7);
        assert!(write(&store, 6, b"again").is_err());
        let mut bytes = Vec::new();
        store.read(ByteRange::new(0, 7), &mut |piece| io::Write::write_all(&mut bytes, piece)).unwrap();
        assert_eq!(bytes, b"abcdefg");
    }
}
