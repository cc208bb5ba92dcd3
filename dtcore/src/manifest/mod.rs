//! Which bytes belong to which stream: pure arithmetic, without sockets, files or clocks.

mod blocks;
mod range;
mod static_split;
mod streams;

pub(crate) use blocks::{BlockId, BlockRun, BlockSet, BlockSize, Manifest};
pub(crate) use range::ByteRange;
pub(crate) use static_split::{InconsistentLengths, StaticSplit};
pub use streams::{InvalidStreamCount, StreamCount, StreamId};
