//! The digest that the user expects of a file, as `ALGO=HEX`.

use std::fmt;
use std::str::FromStr;

use super::{Blake3Digest, Md5Digest};

/// The digest of a file from another source, which the received file must match.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Checksum {
    /// `md5=` and 32 hexadecimal digits.
    Md5(Md5Digest),
    /// `blake3=` and 64 hexadecimal digits.
    Blake3(Blake3Digest),
}

impl FromStr for Checksum {
    type Err = InvalidChecksum;

    fn from_str(text: &str) -> Result<Self, InvalidChecksum> {
        let (algorithm, hex) = text.split_once('=').ok_or(InvalidChecksum)?;
        match algorithm.to_ascii_lowercase().as_str() {
            "md5" => hex.parse().map(Self::Md5).map_err(|_| InvalidChecksum),
            "blake3" => hex.parse().map(Self::Blake3).map_err(|_| InvalidChecksum),
            _ => Err(InvalidChecksum),
        }
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Md5(digest) => write!(f, "md5={digest}"),
            Self::Blake3(digest) => write!(f, "blake3={digest}"),
        }
    }
}

/// Text that is neither `md5=` and 32 nor `blake3=` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a checksum is md5= and 32, or blake3= and 64 hexadecimal digits")]
pub struct InvalidChecksum;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_names_its_algorithm() {
        let text = "md5=900150983cd24fb0d6963f7d28e17f72";
        let checksum: Checksum = text.parse().unwrap();
        assert_eq!(checksum, Checksum::Md5(Md5Digest::of(b"abc")));
        assert_eq!(checksum.to_string(), text);
        let text = "blake3=6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85";
        assert_eq!(text.parse(), Ok(Checksum::Blake3(Blake3Digest::of(b"abc"))));
        assert_eq!(Checksum::Blake3(Blake3Digest::of(b"abc")).to_string(), text);
        for text in [
            "",
            "md5",
            "blake3=900150983cd24fb0d6963f7d28e17f72",
            "md5=12",
            "sha1=900150983cd24fb0d6963f7d28e17f72",
        ] {
            assert_eq!(text.parse::<Checksum>(), Err(InvalidChecksum), "{text}");
        }
    }
}
