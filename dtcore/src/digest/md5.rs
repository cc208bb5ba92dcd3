//! MD5, the digest of files in protocol 1.

use std::fmt;
use std::str::FromStr;

use md5::{Digest, Md5};

use super::{from_hex, to_hex};

/// The MD5 of a file, printed as 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Md5Digest([u8; 16]);

impl Md5Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Md5Hasher::default();
        hasher.update(bytes);
        hasher.finish()
    }
}

impl From<[u8; 16]> for Md5Digest {
    fn from(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl From<Md5Digest> for [u8; 16] {
    fn from(digest: Md5Digest) -> Self {
        digest.0
    }
}

impl fmt::Display for Md5Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

impl fmt::Debug for Md5Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Md5Digest({self})")
    }
}

impl FromStr for Md5Digest {
    type Err = InvalidMd5;

    /// Parses 32 hexadecimal digits of either case.
    fn from_str(text: &str) -> Result<Self, InvalidMd5> {
        from_hex(text).map(Self).ok_or(InvalidMd5)
    }
}

/// Text that is not an MD5.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("an MD5 is 32 hexadecimal digits")]
pub struct InvalidMd5;

/// Computes an [`Md5Digest`] incrementally.
#[derive(Clone, Default)]
pub(crate) struct Md5Hasher(Md5);

impl Md5Hasher {
    /// Adds the next bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes added.
    pub(crate) fn finish(self) -> Md5Digest {
        Md5Digest(self.0.finalize().into())
    }
}

impl fmt::Debug for Md5Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Md5Hasher")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_match_rfc_1321_and_parse() {
        for (text, hex) in [
            ("", "d41d8cd98f00b204e9800998ecf8427e"),
            ("abc", "900150983cd24fb0d6963f7d28e17f72"),
            ("message digest", "f96b697d7cb7938d525a2f31aaf161d0"),
        ] {
            let digest = Md5Digest::of(text.as_bytes());
            assert_eq!(digest.to_string(), hex);
            assert_eq!(hex.to_uppercase().parse(), Ok(digest));
        }
    }

    #[test]
    fn other_text_is_invalid() {
        for text in ["", "d41d8cd98f00b204e9800998ecf8427", "+41d8cd98f00b204e9800998ecf8427e", "zz"] {
            assert_eq!(text.parse::<Md5Digest>(), Err(InvalidMd5), "{text}");
        }
    }
}
