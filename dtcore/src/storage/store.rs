//! The storage trait: how received bytes get into a file, whichever engine does it.

use std::fmt;
use std::io;

use crate::plan::ByteRange;

/// The most bytes one receive call is offered: enough to make the call's own cost vanish, few enough to share a
/// thread fairly between streams. Chunks of 1 and 4 MiB measured alike.
pub(super) const MAX_FILL: usize = 1 << 20;

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

    /// Shows the bytes of `range`, in order and in pieces, to `visit`; all of them must have been written.
    fn read(&self, range: ByteRange, visit: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()>;
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

/// Which side of a [`Writer::fill`] failed.
#[derive(Debug)]
pub(crate) enum FillError {
    /// The source of the bytes.
    Source(io::Error),
    /// The file they were to go to.
    Store(io::Error),
}
