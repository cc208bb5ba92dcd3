//! Digests, by which files and blocks are verified.

mod blake3;
mod checksum;
mod file;
mod md5;

pub use blake3::{Blake3Digest, InvalidBlake3};
pub(crate) use blake3::{RangeDigest, RangeHasher};
pub use checksum::{Checksum, InvalidChecksum};
pub(crate) use file::{FileDigests, FileHasher};
pub(crate) use md5::Md5Hasher;
pub use md5::{InvalidMd5, Md5Digest};

/// Reads exactly `N` bytes in hexadecimal digits of either case, first byte first.
pub(crate) fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}
