//! A file mapped shared and writable, lent out byte range by byte range.
//!
//! Streams receive straight into the mapping, from several threads, while a digest reads the complete ranges. No slice
//! over the entire mapping is ever formed: a [`MapWriter`] has its range to itself, and readers see only filled ranges,
//! which are never written again. The lock of each map enforces both.
//!
//! No program can prevent that another process writes to the file, and then bytes change under their readers; the digest
//! detects that, as far as it has still to read the bytes. A process that truncates the file makes pages vanish. A touch of
//! such a page raises SIGBUS. The kernel itself only reports an error, so [`Map::populate`] and [`Map::check`] ask it just
//! before a range is used; a truncation in the moment between cannot be caught.

use std::fs::File;
use std::sync::Arc;
use std::{io, slice};

use memmap2::{Advice, MmapOptions, MmapRaw};

use crate::sync::Lock;
use crate::sys::range_lock::RangeLock;

/// The first bytes of a file, mapped.
#[derive(Debug)]
pub(crate) struct Map {
    raw: MmapRaw,
    lock: Lock<RangeLock<usize>>,
}

impl Map {
    /// Maps the first `len` bytes of `file`.
    ///
    /// # Errors
    /// The error of mmap: for instance that the file system cannot map, or that address space is short.
    pub(crate) fn new(file: &File, len: usize) -> io::Result<Arc<Self>> {
        let raw = MmapOptions::new().len(len).map_raw(file)?;
        Ok(Arc::new(Self { raw, lock: Lock::default() }))
    }

    /// Its length in bytes.
    fn len(&self) -> usize {
        self.raw.len()
    }

    /// Takes the pages of `[start, end)` from the file system, so that writing them can neither fault nor fail.
    ///
    /// # Errors
    /// `EFAULT` where a touch would raise SIGBUS: the disk is full, or the file was truncated. `EINVAL` before Linux 5.14.
    pub(crate) fn populate(&self, start: usize, end: usize) -> io::Result<()> {
        self.advise(Advice::PopulateWrite, start, end)
    }

    /// Checks that the pages of `[start, end)` can be read.
    ///
    /// # Errors
    /// `EFAULT` where a touch would raise SIGBUS: the file was truncated, or the disk failed.
    pub(crate) fn check(&self, start: usize, end: usize) -> io::Result<()> {
        self.advise(Advice::PopulateRead, start, end)
    }

    fn advise(&self, advice: Advice, start: usize, end: usize) -> io::Result<()> {
        let end = end.min(self.len());
        if start >= end {
            return Ok(());
        }
        self.raw.advise_range(advice, start, end - start)
    }

    /// Lends `[start, end)` to one writer; `None` if a byte of it is lent or filled already, or out of bounds.
    pub(crate) fn writer(self: &Arc<Self>, start: usize, end: usize) -> Option<MapWriter> {
        let lent = end <= self.len() && self.lock.lock().lend(start, end);
        lent.then(|| MapWriter { map: Arc::clone(self), position: start, end })
    }

    /// The bytes `[start, end)`, if all of them are filled.
    pub(crate) fn filled(&self, start: usize, end: usize) -> Option<&[u8]> {
        if start > end || end > self.len() || !self.lock.lock().is_filled(start, end) {
            return None;
        }
        // SAFETY: `start <= end <= len`, so the pointer stays within the mapping, which lives as long as `self`.
        let first = unsafe { self.raw.as_ptr().add(start) };
        // SAFETY: the range is mapped and initialised (the kernel zeroes fresh pages). The lock says that it is
        // filled: it is lent to no writer, and never will be, so nothing in this process writes it while the slice lives.
        Some(unsafe { slice::from_raw_parts(first, end - start) })
    }
}

/// The exclusive right to write the bytes of one range of a [`Map`], in ascending order.
///
/// Bytes that are not filled when the writer is dropped become free.
#[derive(Debug)]
pub(crate) struct MapWriter {
    map: Arc<Map>,
    position: usize,
    end: usize,
}

impl MapWriter {
    /// The map that it writes to.
    pub(crate) fn map(&self) -> &Arc<Map> {
        &self.map
    }

    /// The offset of the next byte.
    pub(crate) fn position(&self) -> usize {
        self.position
    }

    /// How many bytes are still to be filled.
    pub(crate) fn remaining(&self) -> usize {
        self.end - self.position
    }

    /// The next bytes to fill, at most `max`.
    ///
    /// Only this writer sees these bytes until they are declared filled: they can be read again, and overwritten.
    pub(crate) fn space(&mut self, max: usize) -> &mut [u8] {
        let len = self.remaining().min(max);
        // SAFETY: `position <= end <= len of the map`, so the pointer stays within the mapping.
        let first = unsafe { self.map.raw.as_mut_ptr().add(self.position) };
        // SAFETY: `[position, end)` is mapped and initialised, and the lock lends it to this writer alone: no reader
        // sees it before it is filled, and `&mut self` keeps this writer from handing it out twice.
        unsafe { slice::from_raw_parts_mut(first, len) }
    }

    /// Declares the next `n` bytes filled: they can be read from now on, and never written again.
    pub(crate) fn fill(&mut self, n: usize) {
        let next = self.position + n.min(self.remaining());
        self.map.lock.lock().fill(self.position, next);
        self.position = next;
    }
}

impl Drop for MapWriter {
    fn drop(&mut self) {
        self.map.lock.lock().take_back(self.position, self.end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(len: usize) -> (File, Arc<Map>) {
        let file = tempfile::tempfile().unwrap();
        file.set_len(u64::try_from(len).unwrap()).unwrap();
        let map = Map::new(&file, len).unwrap();
        (file, map)
    }

    #[test]
    fn filled_bytes_can_be_read_and_are_in_the_file() {
        let (file, map) = map(10_000);
        let mut writer = map.writer(5_000, 9_000).unwrap();
        writer.space(3).copy_from_slice(b"abc");
        assert_eq!(map.filled(5_000, 5_003), None, "not before it is declared filled");
        writer.fill(3);
        assert_eq!(map.filled(5_000, 5_003), Some(&b"abc"[..]));
        assert_eq!(map.filled(5_000, 5_004), None);
        let mut bytes = [0; 3];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 5_000).unwrap();
        assert_eq!(&bytes, b"abc");
    }

    #[test]
    fn byte_has_one_writer_and_is_written_once() {
        let (_file, map) = map(10_000);
        let mut writer = map.writer(0, 4_000).unwrap();
        assert!(map.writer(3_999, 5_000).is_none());
        assert!(map.writer(0, 10_001).is_none());
        writer.space(10).fill(7);
        writer.fill(10);
        drop(writer);
        assert!(map.writer(9, 20).is_none(), "filled bytes are never lent again");
        assert!(map.writer(10, 20).is_some(), "unfilled ones are");
    }

    #[test]
    fn bytes_not_declared_filled_are_seen_by_their_writer_only() {
        let (_file, map) = map(10_000);
        let mut writer = map.writer(5_000, 9_000).unwrap();
        writer.space(usize::MAX)[10..13].copy_from_slice(b"abc");
        assert_eq!(&writer.space(13)[10..], b"abc");
        assert_eq!(map.filled(5_010, 5_013), None);
        assert!(map.writer(5_010, 5_013).is_none());
        writer.space(usize::MAX)[10..13].copy_from_slice(b"xyz");
        writer.fill(4_000);
        assert_eq!(map.filled(5_010, 5_013), Some(&b"xyz"[..]));
    }

    #[test]
    fn truncated_file_is_an_error_and_not_a_signal() {
        let (file, map) = map(1 << 20);
        assert!(map.populate(0, 1 << 20).is_ok());
        file.set_len(4096).unwrap();
        assert!(map.populate(0, 4096).is_ok());
        assert!(map.populate(0, 1 << 20).is_err());
        assert!(map.check(8192, 16_384).is_err());
    }
}
