//! How files are divided into blocks, runs and the static parts of protocol 1: pure arithmetic.

mod block_set;
mod blocks;
mod range;
mod static_split;
mod streams;

pub(crate) use block_set::BlockSet;
pub(crate) use blocks::{BlockId, BlockRun, BlockSize, Manifest};
pub(crate) use range::ByteRange;
pub(crate) use static_split::{InconsistentLengths, StaticSplit};
pub use streams::{InvalidStreamCount, StreamCount, StreamId};
