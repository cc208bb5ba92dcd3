//! The one place with unsafe code: memory mappings.

#![allow(unsafe_code, reason = "the workspace's one opt-out; every block says why it is sound")]

pub(crate) mod descriptors;
pub(crate) mod filesystem;
mod map;
mod mapped_range;
mod piece_reader;
mod range_lock;
mod threads;

pub(crate) use map::{Map, MapWriter};
pub(crate) use mapped_range::MappedRange;
pub(crate) use piece_reader::{PIECE, PieceReader};
pub(crate) use range_lock::RangeLock;
pub use threads::available_threads;
