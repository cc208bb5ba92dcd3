//! BLAKE3, the digest of protocol 2: of files, and of the ranges of a file that are subtrees.
//!
//! BLAKE3 is a tree over chunks of 1 KiB. A range whose length is a power of two and which begins at a multiple of its
//! length is a subtree; so is a shorter one at the end of the file. The chaining values of such ranges merge into the
//! hash of the file, so that blocks can be verified one by one and in any order, and the file without reading it again.

use std::fmt;
use std::str::FromStr;

use blake3::Hasher;
use blake3::hazmat::{self, HasherExt, Mode};

use crate::manifest::{ByteRange, Manifest};
use crate::num::to_u64;

/// The BLAKE3 hash of a file, printed as by `b3sum`: 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Blake3Digest([u8; 32]);

impl Blake3Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The digest of a file from those of all its blocks, in order; `None` if their number is not that of the blocks.
    pub(crate) fn of_blocks(manifest: &Manifest, blocks: &[RangeDigest]) -> Option<Self> {
        if u32::try_from(blocks.len()) != Ok(manifest.n_blocks()) {
            return None;
        }
        match blocks {
            [] => Some(Self::of(b"")),
            // The only block is the file.
            [only] => Some(Self(only.0)),
            _ => {
                let (left, right) = blocks.split_at_checked(left_blocks(blocks.len()))?;
                let (left, right) = (merge(left)?, merge(right)?);
                Some(Self(*hazmat::merge_subtrees_root(&left, &right, Mode::Hash).as_bytes()))
            }
        }
    }
}

impl From<[u8; 32]> for Blake3Digest {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl From<Blake3Digest> for [u8; 32] {
    fn from(digest: Blake3Digest) -> Self {
        digest.0
    }
}

impl fmt::Display for Blake3Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        blake3::Hash::from_bytes(self.0).fmt(f)
    }
}

impl fmt::Debug for Blake3Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blake3Digest({self})")
    }
}

impl FromStr for Blake3Digest {
    type Err = InvalidBlake3;

    /// Parses 64 hexadecimal digits of either case.
    fn from_str(text: &str) -> Result<Self, InvalidBlake3> {
        blake3::Hash::from_hex(text).map(|hash| Self(*hash.as_bytes())).map_err(|_| InvalidBlake3)
    }
}

/// Text that is not a BLAKE3 hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a BLAKE3 hash is 64 hexadecimal digits")]
pub struct InvalidBlake3;

/// The digest of a range that is a subtree: its chaining value, or the hash of the file if the range is all of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct RangeDigest(pub(crate) [u8; 32]);

impl RangeDigest {
    /// Its length in bytes.
    pub(crate) const LEN: usize = 32;

    /// The digest of `bytes`, the content of `range` in a file of `size` bytes.
    ///
    /// `None` if the range is not a subtree of such a file, or not as long as `bytes`.
    pub(crate) fn of(size: u64, range: ByteRange, bytes: &[u8]) -> Option<Self> {
        let mut hasher = RangeHasher::new(size, range)?;
        hasher.update(bytes)?;
        hasher.finish()
    }
}

impl fmt::Debug for RangeDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RangeDigest({})", blake3::Hash::from_bytes(self.0))
    }
}

/// Computes a [`RangeDigest`] incrementally.
#[derive(Clone, Debug)]
pub(crate) struct RangeHasher {
    hasher: Hasher,
    remaining: u64,
    is_entire_file: bool,
}

impl RangeHasher {
    /// A hasher for `range` of a file of `size` bytes; `None` if it is not a subtree.
    pub(crate) fn new(size: u64, range: ByteRange) -> Option<Self> {
        if !is_subtree(size, range) {
            return None;
        }
        let mut hasher = Hasher::new();
        if range.start() > 0 {
            hasher.set_input_offset(range.start());
        }
        Some(Self { hasher, remaining: range.len(), is_entire_file: range.len() == size })
    }

    /// Adds the next bytes; `None`, and nothing is added, if the range has fewer.
    pub(crate) fn update(&mut self, bytes: &[u8]) -> Option<()> {
        self.remaining = self.remaining.checked_sub(to_u64(bytes.len()))?;
        self.hasher.update(bytes);
        Some(())
    }

    /// The digest; `None` if bytes are missing.
    pub(crate) fn finish(self) -> Option<RangeDigest> {
        if self.remaining > 0 {
            return None;
        }
        Some(RangeDigest(if self.is_entire_file {
            *self.hasher.finalize().as_bytes()
        } else {
            self.hasher.finalize_non_root()
        }))
    }
}

/// Whether `range` is a subtree of a file of `size` bytes: aligned, and a power of two long or at the end of the file.
pub(crate) fn is_subtree(size: u64, range: ByteRange) -> bool {
    let Some(span) = range.len().max(CHUNK).checked_next_power_of_two() else { return false };
    let reaches_end = range.end() == size;
    let is_full = range.len() == span;
    !range.is_empty()
        && range.end() <= size
        && (is_full || reaches_end)
        && range.start().checked_rem(span) == Some(0)
}

/// The length of a leaf of the tree in bytes.
const CHUNK: u64 = 1 << 10;

/// How many of `n > 1` blocks the left child of their common parent covers: the largest power of two below `n`.
fn left_blocks(n: usize) -> usize {
    n.div_ceil(2).next_power_of_two()
}

/// The chaining value of adjacent blocks that are not the entire file.
fn merge(blocks: &[RangeDigest]) -> Option<[u8; 32]> {
    match blocks {
        [] => None,
        [one] => Some(one.0),
        _ => {
            // At most 24 deep: a file has at most 2^24 blocks.
            let (left, right) = blocks.split_at_checked(left_blocks(blocks.len()))?;
            Some(hazmat::merge_subtrees_non_root(&merge(left)?, &merge(right)?, Mode::Hash))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::BlockSize;
    use proptest::prelude::*;

    fn content(len: usize) -> Vec<u8> {
        (0..len).map(|i| u8::try_from(i * 31 % 251).unwrap()).collect()
    }

    #[test]
    fn digests_match_the_specification_and_parse() {
        let hex = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        assert_eq!(Blake3Digest::of(b"").to_string(), hex);
        assert_eq!(hex.to_uppercase().parse(), Ok(Blake3Digest::of(b"")));
        for text in ["", "af13", &hex[1..], "zz"] {
            assert_eq!(text.parse::<Blake3Digest>(), Err(InvalidBlake3), "{text}");
        }
    }

    #[test]
    fn only_subtrees_have_a_digest() {
        for (size, start, end, expected) in [
            (10_000, 0, 1024, true),
            (10_000, 1024, 2048, true),
            (10_000, 1024, 3072, false),
            (10_000, 2048, 4096, true),
            (10_000, 0, 8192, true),
            (10_000, 8192, 10_000, true),
            (10_000, 8192, 9999, false),
            (10_000, 9216, 10_000, true),
            (10_000, 0, 10_000, true),
            (10_000, 4096, 10_000, false),
            (10_000, 0, 0, false),
            (10_000, 8192, 10_240, false),
            (10, 0, 10, true),
            (10, 1, 10, false),
            (u64::MAX, 0, u64::MAX, false),
        ] {
            assert_eq!(is_subtree(size, ByteRange::new(start, end)), expected, "{start}..{end} of {size}");
        }
    }

    #[test]
    fn digest_needs_exactly_the_bytes_of_its_range() {
        let range = ByteRange::new(1024, 2048);
        assert_eq!(RangeDigest::of(4096, range, &content(1023)), None);
        assert_eq!(RangeDigest::of(4096, range, &content(1025)), None);
        assert!(RangeDigest::of(4096, range, &content(1024)).is_some());
        let elsewhere = RangeDigest::of(4096, ByteRange::new(2048, 3072), &content(1024));
        assert_ne!(RangeDigest::of(4096, range, &content(1024)), elsewhere, "the offset counts");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn blocks_merge_into_the_hash_of_the_file(size in 0..400_000_usize, cut in 0..3_usize) {
            // Most often around the boundaries of blocks.
            let size = if cut == 0 { size } else { (size & !0x3fff) + cut - 1 };
            let bytes = content(size);
            let manifest = Manifest::new(to_u64(size), BlockSize::new(1 << 14).unwrap()).unwrap();
            let digests: Vec<_> = manifest.blocks().map(|block| {
                let range = manifest.range(block);
                let (start, end) = (usize::try_from(range.start()).unwrap(), usize::try_from(range.end()).unwrap());
                RangeDigest::of(manifest.size(), range, &bytes[start..end]).unwrap()
            }).collect();
            prop_assert_eq!(Blake3Digest::of_blocks(&manifest, &digests), Some(Blake3Digest::of(&bytes)));
            if !digests.is_empty() {
                prop_assert_eq!(Blake3Digest::of_blocks(&manifest, &digests[1..]), None);
            }
        }
    }
}
