//! The digests of a file that is read sequentially.

use blake3::Hasher;

use super::{Blake3Digest, Checksum, Md5Digest, Md5Hasher};

/// The digests of one file, as far as they were requested.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct FileDigests {
    pub(crate) md5: Option<Md5Digest>,
    pub(crate) blake3: Option<Blake3Digest>,
}

impl FileDigests {
    /// The digest by the algorithm of `expected`, if it was computed.
    pub(crate) fn comparable(&self, expected: &Checksum) -> Option<Checksum> {
        match expected {
            Checksum::Md5(_) => self.md5.map(Checksum::Md5),
            Checksum::Blake3(_) => self.blake3.map(Checksum::Blake3),
        }
    }
}

/// Computes [`FileDigests`] incrementally; by default none of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct FileHasher {
    md5: Option<Md5Hasher>,
    blake3: Option<Hasher>,
}

impl FileHasher {
    /// Computes the MD5.
    pub(crate) fn with_md5(mut self) -> Self {
        self.md5 = Some(Md5Hasher::default());
        self
    }

    /// Computes the BLAKE3 hash.
    pub(crate) fn with_blake3(mut self) -> Self {
        self.blake3 = Some(Hasher::new());
        self
    }

    /// Adds the next bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        if let Some(md5) = &mut self.md5 {
            md5.update(bytes);
        }
        if let Some(blake3) = &mut self.blake3 {
            blake3.update(bytes);
        }
    }

    /// The digests of all bytes added.
    pub(crate) fn finish(self) -> FileDigests {
        FileDigests {
            md5: self.md5.map(Md5Hasher::finish),
            blake3: self.blake3.map(|hasher| (*hasher.finalize().as_bytes()).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_requested_digests_are_computed() {
        let digests = |mut hasher: FileHasher| {
            hasher.update(b"a");
            hasher.update(b"bc");
            hasher.finish()
        };
        let (md5, blake3) = (Md5Digest::of(b"abc"), Blake3Digest::of(b"abc"));
        assert_eq!(digests(FileHasher::default()), FileDigests::default());
        assert_eq!(digests(FileHasher::default().with_md5()), FileDigests { md5: Some(md5), blake3: None });
        let both = digests(FileHasher::default().with_md5().with_blake3());
        assert_eq!(both, FileDigests { md5: Some(md5), blake3: Some(blake3) });
        assert_eq!(both.comparable(&Checksum::Blake3(Blake3Digest::of(b""))), Some(Checksum::Blake3(blake3)));
        assert_eq!(both.comparable(&Checksum::Md5(Md5Digest::of(b""))), Some(Checksum::Md5(md5)));
    }
}
