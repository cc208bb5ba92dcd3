//! The one place with unsafe code: a shared memory mapping whose bytes are lent out exclusively.

#![allow(unsafe_code, reason = "the workspace's one opt-out; every block says why it is sound")]

pub(crate) mod filesystem;
mod map;
mod piece_reader;
mod range_lock;

pub(crate) use map::{Map, MapWriter};
pub(crate) use piece_reader::{PIECE, PieceReader};
pub(crate) use range_lock::RangeLock;
