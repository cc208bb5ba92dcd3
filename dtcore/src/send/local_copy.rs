//! Copies an object's bytes into the connection of a receiver on the same machine.
//!
//! `sendfile` passes on the page cache's own pages: a receiver on another core fetches each of them from memory, and both
//! cores count references to it. Read into a buffer that stays in this core's cache, and sent from there, the bytes are still
//! in a cache when the receiver takes them. Loopback, tmpfs, 2 GiB, two cores, medians: 1.31 against 1.38 s over 8 streams,
//! 1.65 against 2.57 s over one, and 0.84 of both sides' CPU time. Over a network `sendfile` copies nothing, and is used.

use std::cell::RefCell;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{SendFlags, send};

use crate::backend::Object;
use crate::manifest::ByteRange;
use crate::num::{to_u64, to_usize};

/// Small beside a core's cache; 128 KiB and 512 KiB measured alike, 64 KiB a tenth slower.
const PIECE: usize = 256 << 10;

thread_local! {
    /// One for each thread, not for each stream: only one that is used all the time stays in the cache.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Sends as much of `range` as the socket accepts at once; 0 if the object ends before it.
///
/// # Errors
/// [`Errno::IO`] if the object cannot be read; otherwise those of `send`, [`io::ErrorKind::WouldBlock`] if nothing was
/// accepted.
pub(super) fn copy(source: &dyn Object, range: ByteRange, socket: BorrowedFd<'_>) -> io::Result<usize> {
    BUFFER.with_borrow_mut(|buffer| {
        buffer.resize(PIECE, 0);
        let mut sent = 0;
        while sent < to_usize(range.len()) {
            let offset = sent;
            let piece = buffer.get_mut(..PIECE.min(to_usize(range.len()) - offset)).unwrap_or_default();
            let n_read = match source.read_at(piece, range.start() + to_u64(offset)) {
                Ok(n) => n,
                Err(_) if sent > 0 => break,
                Err(_) => return Err(Errno::IO.into()),
            };
            let piece = piece.get(..n_read).unwrap_or_default();
            match retry_on_intr(|| send(socket, piece, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)) {
                Ok(n) => sent += n,
                Err(_) if sent > 0 => break,
                Err(errno) => return Err(errno.into()),
            }
            // The object ends, or the socket is full: what it did not accept is read again later, which costs less than
            // keeping it.
            if sent < offset + PIECE {
                break;
            }
        }
        Ok(sent)
    })
}
