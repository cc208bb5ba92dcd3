//! Digests, by which files and blocks are verified.

mod blake3;
mod checksum;
mod file;
mod hex;
mod md5;

pub use blake3::{Blake3Digest, InvalidBlake3};
pub(crate) use blake3::{RangeDigest, RangeHasher};
pub use checksum::{Checksum, InvalidChecksum};
pub(crate) use file::{FileDigests, FileHasher};
pub(crate) use hex::{bytes_from_hex, from_hex, to_hex};
pub(crate) use md5::Md5Hasher;
pub use md5::{InvalidMd5, Md5Digest};
