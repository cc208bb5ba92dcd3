//! The hello: which stream of which session a connection is, and the secret that proves it.

use std::fmt;

use subtle::ConstantTimeEq;

use super::VERSION;
use crate::digest::{from_hex, to_hex};

/// The length of a hello in bytes.
pub(crate) const HELLO_LEN: usize = 28;

/// The second byte of a hello: neither ASCII, as in HTTP, nor a version of TLS, so the first two bytes of a connection
/// identify it.
pub(crate) const MAGIC: u8 = 0xd7;

/// The flag that the connection replaces the stream's former one.
const REPLACES: u8 = 1;

/// The first bytes of a stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Hello {
    /// The stream's number; whether the session has it is not checked here.
    pub(crate) stream: u8,
    pub(crate) secret: Secret,
    pub(crate) session: SessionId,
    pub(crate) replacing: Replacing,
}

/// Whether a connection takes the place of its stream's former one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Replacing {
    /// The stream's first connection, or one whose former connection is known to have ended.
    Nothing,
    /// The sender must close the former connection, if it still has it.
    Former,
}

impl Hello {
    /// The bytes on the wire.
    pub(crate) fn encode(&self) -> [u8; HELLO_LEN] {
        let flags = match self.replacing {
            Replacing::Nothing => 0,
            Replacing::Former => REPLACES,
        };
        let mut bytes = [0; HELLO_LEN];
        let fields = [self.stream, MAGIC, VERSION, flags]
            .into_iter()
            .chain(self.session.0.to_le_bytes())
            .chain(self.secret.0);
        bytes.iter_mut().zip(fields).for_each(|(byte, field)| *byte = field);
        bytes
    }

    /// Reads a hello; `None` for bytes that are not a hello of this version.
    pub(crate) fn decode(bytes: &[u8; HELLO_LEN]) -> Option<Self> {
        let ([stream, magic, version, flags], rest) = bytes.split_first_chunk()?;
        let (session, rest) = rest.split_first_chunk()?;
        let secret = rest.first_chunk()?;
        let replacing = match (*magic, *version, *flags) {
            (MAGIC, VERSION, 0) => Replacing::Nothing,
            (MAGIC, VERSION, REPLACES) => Replacing::Former,
            _ => return None,
        };
        let (session, secret) = (SessionId(u64::from_le_bytes(*session)), Secret(*secret));
        Some(Self { stream: *stream, secret, session, replacing })
    }
}

/// Which session a stream belongs to; no secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct SessionId(pub(crate) u64);

impl SessionId {
    /// Reads what its `Display` writes.
    pub(super) fn from_hex(text: &str) -> Option<Self> {
        from_hex(text).map(|bytes| Self(u64::from_le_bytes(bytes).swap_bytes()))
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What a stream must know to belong to a session.
#[derive(Clone)]
pub(crate) struct Secret(pub(crate) [u8; 16]);

impl Secret {
    /// The digits for the answer; a secret has no `Display`, so that none gets into a log.
    pub(crate) fn to_hex(&self) -> String {
        to_hex(&self.0)
    }
}

/// Compares in a time that does not depend on where two secrets differ.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The bytes on the wire, pinned.
    #[test]
    fn hello_is_these_28_bytes() {
        let hello = Hello {
            stream: 7,
            secret: Secret(from_hex("000102030405060708090a0b0c0d0e0f").unwrap()),
            session: SessionId(0xa7),
            replacing: Replacing::Former,
        };
        let golden =
            [7, 0xd7, 2, 1, 0xa7, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
        assert_eq!(hello.encode(), golden);
        assert_eq!(Hello::decode(&golden), Some(hello));
    }

    #[test]
    fn other_versions_and_flags_are_rejected() {
        for (at, value) in [(1, 0xd6), (1, b'O'), (2, 1), (2, 3), (3, 2), (3, 0xff)] {
            let mut bytes = [0; HELLO_LEN];
            (bytes[1], bytes[2]) = (MAGIC, VERSION);
            assert!(Hello::decode(&bytes).is_some());
            bytes[at] = value;
            assert_eq!(Hello::decode(&bytes), None, "{at}");
        }
    }

    #[test]
    fn numbers_are_read_back_and_other_text_is_rejected() {
        let session = SessionId(0x0123_4567_89ab_cdef);
        assert_eq!(session.to_string(), "0123456789abcdef");
        assert_eq!(SessionId::from_hex(&session.to_string()), Some(session));
        let secret = Secret([0x5a; 16]);
        assert_eq!(from_hex(&secret.to_hex()).map(Secret), Some(secret));
        for text in ["", "12", "0123456789abcdeg", "+123456789abcdef", "é23456789abcdef"] {
            assert_eq!(SessionId::from_hex(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn decoded_hellos_encode_to_the_same_bytes(mut bytes: [u8; HELLO_LEN], flags in 0..3_u8) {
            (bytes[1], bytes[2], bytes[3]) = (MAGIC, VERSION, flags);
            if let Some(hello) = Hello::decode(&bytes) {
                prop_assert_eq!(hello.encode(), bytes);
            }
        }
    }
}
