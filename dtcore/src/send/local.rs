//! Sends an object's bytes to a receiver on the same machine, from a mapping of its file.
//!
//! `sendfile` passes on the page cache's own pages: a receiver on another core fetches each of them from memory, and both
//! cores count references to it. Copied into the connection's own memory, the bytes are still in a cache when the receiver
//! takes them. Loopback, tmpfs, 2 GiB, two cores, medians: 1.21 against 1.38 s over 8 streams, 1.29 against 2.57 s over one;
//! reading into a buffer in place of mapping takes 1.23 and 1.41 s. Over a network `sendfile` copies nothing, and is used.

use std::io;
use std::os::fd::BorrowedFd;

use crate::manifest::ByteRange;
use crate::sys::MappedRange;

/// The most that is mapped at once: mapping takes the pages that are not in memory from the disk.
const MAX_MAPPED: u64 = 4 << 20;

/// Sends as much of `range` as the socket accepts at once; 0 if the file ends before it.
///
/// `mapped` is what was mapped by the call before, and is for the next one.
///
/// # Errors
/// Those of mapping the file; those of `send`, [`io::ErrorKind::WouldBlock`] if nothing was accepted.
pub(super) fn send(
    file: BorrowedFd<'_>,
    range: ByteRange,
    socket: BorrowedFd<'_>,
    mapped: &mut Option<MappedRange>,
) -> io::Result<usize> {
    let is_mapped =
        |mapped: &MappedRange| (mapped.range().start()..mapped.range().end()).contains(&range.start());
    if !mapped.as_ref().is_some_and(is_mapped) {
        *mapped = MappedRange::new(file, ByteRange::with_len(range.start(), range.len().min(MAX_MAPPED)))?;
    }
    mapped.as_ref().map_or(Ok(0), |mapped| mapped.send(range.start(), socket))
}
