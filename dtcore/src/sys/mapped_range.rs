//! A part of a file, mapped only for the kernel: the bytes are sent from the page cache without a copy in this process.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::slice;

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::fstat;
use rustix::io::retry_on_intr;
use rustix::net::{SendFlags, send};

use crate::manifest::ByteRange;
use crate::num::to_usize;

/// A mapped part of a file.
#[derive(Debug)]
pub(crate) struct MappedRange {
    raw: MmapRaw,
    range: ByteRange,
}

impl MappedRange {
    /// Maps `range` of `file`, as far as the file has it, with its pages populated; `None` if the file has nothing of it.
    ///
    /// # Errors
    /// Those of `fstat` and `mmap`.
    pub(crate) fn new(file: BorrowedFd<'_>, range: ByteRange) -> io::Result<Option<Self>> {
        // The rest of the last page is mapped, too, and would be sent as zeros.
        let size = u64::try_from(fstat(file)?.st_size).unwrap_or(0);
        let range = ByteRange::new(range.start(), range.end().min(size));
        if range.is_empty() {
            return Ok(None);
        }
        let mut options = MmapOptions::new();
        options.offset(range.start()).len(to_usize(range.len())).populate();
        let raw = options.map_raw_read_only(file.as_raw_fd())?;
        Ok(Some(Self { raw, range }))
    }

    /// The part of the file that is mapped.
    pub(crate) fn range(&self) -> ByteRange {
        self.range
    }

    /// Sends the bytes from the file's `offset` on, as many as the socket accepts at once.
    ///
    /// # Errors
    /// Those of `send`; `EFAULT` if the file was truncated, or cannot be read.
    pub(crate) fn send(&self, offset: u64, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let start = to_usize(offset.clamp(self.range.start(), self.range.end()) - self.range.start());
        // SAFETY: `start` is within the mapping, or at its end.
        let first = unsafe { self.raw.as_ptr().add(start) };
        // SAFETY: the range is mapped as long as `self` lives. Nobody looks at the bytes but the kernel, for which a page
        // that another process changes or truncates meanwhile is no more than that: it never raises SIGBUS, it reports an error.
        let bytes = unsafe { slice::from_raw_parts(first, to_usize(self.range.len()) - start) };
        Ok(retry_on_intr(|| send(socket, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT))?)
    }
}
