//! The storage trait: how received bytes get into a file, with any engine.

mod buffer_pool;
mod engine;
mod mmap;
mod pwrite;

use std::{fmt, io};

pub(crate) use buffer_pool::{Buffers, Heap};
pub(crate) use engine::{BUFFERS, open, open_for_blocks};
pub use engine::{Engine, InvalidEngine};
pub(crate) use pwrite::PwriteStore;

use crate::manifest::ByteRange;
use crate::num::to_u64;

/// A file that is being filled.
pub(crate) trait Store: Send + Sync + fmt::Debug {
    /// The exclusive right to receive `range`, of which nothing counts before it is committed.
    ///
    /// `None` if a byte of it is outside the store, leased or filled.
    fn lease(&self, range: ByteRange) -> Option<Box<dyn Lease>>;

    /// Whether leased ranges are received into buffers on the heap, as long as the ranges.
    fn is_buffered(&self) -> bool;

    /// Declares that an earlier transfer has written `range`; `false` if it cannot be.
    fn declare_filled(&self, range: ByteRange) -> bool;

    /// Whether every byte of `range` was committed or declared filled.
    fn is_filled(&self, range: ByteRange) -> bool;

    /// Shows the bytes of `range`, in order and in pieces, to `visit`; all of them must be filled.
    fn read(&self, range: ByteRange, visit: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()>;

    /// Declares that the bytes before `before` will not be read again.
    fn forget(&self, before: u64) {
        let _ = before;
    }
}

/// The exclusive right to one range, whose bytes are received, verified, and only then count.
///
/// Dropped before it is committed, it leaves the range free.
pub(crate) trait Lease: Send + fmt::Debug {
    /// How many bytes of the range are still to be received.
    fn remaining(&self) -> u64;

    /// Lets `source` put bytes into the next space and records as many as it returns; returns that number.
    ///
    /// The space is all that remains, or a few MiB of it.
    ///
    /// # Errors
    /// [`FillError::Source`] is the error of `source`; nothing was received then.
    fn fill(&mut self, source: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>) -> Result<usize, FillError>;

    /// The bytes received so far; none after [`flush`](Self::flush).
    ///
    /// # Errors
    /// Another process truncated the file, or its disk failed.
    fn received(&mut self) -> io::Result<&[u8]>;

    /// Writes the received bytes to their place, where they are not there yet, and frees their buffer. They do not count yet,
    /// and nothing more can be received.
    ///
    /// # Errors
    /// The error of the file system.
    fn flush(&mut self) -> io::Result<()>;

    /// Makes the received bytes count: [`Store::read`] shows them, and they never change again. The rest of the range is free.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    fn commit(self: Box<Self>) -> io::Result<()>;
}

/// Writes `bytes` at `offset`, where nothing was written yet.
///
/// # Errors
/// The error of the file system, or the range is outside the store, leased or filled.
pub(crate) fn write(store: &dyn Store, offset: u64, mut bytes: &[u8]) -> io::Result<()> {
    let range = ByteRange::with_len(offset, to_u64(bytes.len()));
    let taken = || io::Error::other("the store has no place for these bytes");
    let mut lease = store.lease(range).ok_or_else(taken)?;
    while lease.remaining() > 0 {
        lease.fill(&mut |space| io::Read::read(&mut bytes, space)).map_err(FillError::into_io)?;
    }
    lease.commit()
}

/// The error of a file that is shorter than it was made.
pub(crate) fn truncated() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "another process truncated it")
}

/// Which side of a [`Lease::fill`] failed.
#[derive(Debug)]
pub(crate) enum FillError {
    /// The source of the bytes.
    Source(io::Error),
    /// The file that they are written to.
    Store(io::Error),
}

impl FillError {
    /// The error, where it does not matter which side failed.
    pub(crate) fn into_io(self) -> io::Error {
        match self {
            Self::Source(error) | Self::Store(error) => error,
        }
    }
}
