//! What proves that the bytes are right.

mod checksum;
mod md5;

pub use checksum::{Checksum, InvalidChecksum};
pub(crate) use md5::Md5Hasher;
pub use md5::{InvalidMd5, Md5Digest};
