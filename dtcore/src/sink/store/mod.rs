//! The storage trait: how received bytes get into a file, whichever engine does it.

mod buffer_pool;
mod engine;
mod growing;
mod mmap;
mod pwrite;

use std::{fmt, io};

pub(crate) use buffer_pool::{Buffers, Heap};
pub(crate) use engine::BUFFERS;
pub use engine::{Engine, InvalidEngine};
pub(crate) use engine::{open, open_for_blocks};
pub(crate) use growing::{GrowingWriter, append};
#[cfg(test)]
pub(crate) use pwrite::PwriteStore;

use crate::manifest::ByteRange;

/// The most bytes one receive call is offered: enough to make the call's own cost vanish, few enough to share a
/// thread fairly between streams. Chunks of 1 and 4 MiB measured alike.
pub(crate) const MAX_FILL: usize = 1 << 20;

/// A file that is being filled.
pub(crate) trait Store: Send + Sync + fmt::Debug {
    /// Reserves room so that at least the first `len` bytes can be written.
    ///
    /// Where the file system can tell, a full disk is an error here and not later.
    fn grow(&self, len: u64) -> io::Result<()>;

    /// The exclusive right to write `range`, or as much of its beginning as is contiguous in the store.
    ///
    /// `None` if the range was not reserved; for a mapping also if it is being written or was written already.
    fn writer(&self, range: ByteRange) -> Option<Box<dyn Writer>>;

    /// The exclusive right to receive `range`, of which nothing counts before it is committed.
    ///
    /// `None` if a byte of it was not reserved, is leased, being written, or written already.
    fn lease(&self, range: ByteRange) -> Option<Box<dyn Lease>>;

    /// Whether what is leased is received into a buffer on the heap, as long as the range.
    fn is_buffered(&self) -> bool;

    /// Declares that `range` is written already, by an earlier transfer; `false` if it cannot be.
    fn declare_filled(&self, range: ByteRange) -> bool;

    /// Shows the bytes of `range`, in order and in pieces, to `visit`; all of them must have been written.
    fn read(&self, range: ByteRange, visit: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()>;

    /// Says that nobody will read a byte before `before` any more.
    fn forget(&self, before: u64) {
        let _ = before;
    }
}

/// The exclusive right to write one range, in ascending order.
pub(crate) trait Writer: Send {
    /// How many bytes of the range are still to be written.
    fn remaining(&self) -> u64;

    /// Lets `source` put bytes into the next space and records as many as it says; returns that number.
    ///
    /// # Errors
    /// [`FillError::Source`] is what `source` returned; nothing was written then.
    fn fill(&mut self, source: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>) -> Result<usize, FillError>;
}

/// The exclusive right to one range, whose bytes are received, looked at, and only then count.
///
/// Dropped before it is committed, it leaves the range as free as it was.
pub(crate) trait Lease: Send + fmt::Debug {
    /// How many bytes of the range are still to be received.
    fn remaining(&self) -> u64;

    /// As [`Writer::fill`]; the space is all that remains, or a few MiB of it where that is more.
    fn fill(&mut self, source: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>) -> Result<usize, FillError>;

    /// What was received so far.
    ///
    /// # Errors
    /// Another process truncated the file, or its disk failed.
    fn received(&mut self) -> io::Result<&[u8]>;

    /// Throws away what was received.
    fn restart(&mut self);

    /// Makes the bytes count: [`Store::read`] shows them, and they never change again.
    ///
    /// # Errors
    /// What the file system said, or that bytes are missing.
    fn commit(self: Box<Self>) -> io::Result<()>;
}

/// The error of a lease that was to be committed before all of it had been received.
pub(crate) fn incomplete() -> io::Error {
    io::Error::other("the range was not received whole")
}

/// The error of a file that is shorter than it was made.
pub(crate) fn truncated() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "another process truncated it")
}

/// Which side of a [`Writer::fill`] failed.
#[derive(Debug)]
pub(crate) enum FillError {
    /// The source of the bytes.
    Source(io::Error),
    /// The file they were to go to.
    Store(io::Error),
}
