//! The bodies of the request that opens a session, and of the offer that answers it.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use super::VERSION;
use super::WholeDigests;
use super::hello::{Secret, SessionId};
use crate::digest::{Blake3Digest, Md5Digest, from_hex, to_hex};
use crate::manifest::{BlockRun, BlockSize, Manifest, StreamCount};

/// The request for a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SessionRequest {
    pub(crate) streams: StreamCount,
    /// Which digests of the file will be requested in the end.
    pub(crate) digests: WholeDigests,
    /// What the sender may send with the offer.
    pub(crate) push: Push,
    /// Whether the file may grow meanwhile, and is then sent up to the length that was offered.
    pub(crate) may_grow: bool,
}

/// What a sender may send with its offer, without a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Push {
    /// The first byte of the file that the receiver lacks.
    pub(crate) from: u64,
    /// How many bytes of data, at most.
    pub(crate) length: u64,
}

impl Push {
    /// The run that this allows, which both sides compute.
    pub(crate) fn run(self, manifest: &Manifest) -> Option<BlockRun> {
        manifest.pushed_run(self.from, self.length)
    }
}

impl SessionRequest {
    /// The body. A server of protocol 1 finds in it what it needs.
    pub(crate) fn encode(self) -> String {
        let digests = match self.digests {
            WholeDigests::Blake3 => "",
            WholeDigests::Blake3AndMd5 => ", \"md5\": true",
        };
        let push = match self.push {
            Push { length: 0, .. } => String::new(),
            Push { from, length } => format!(", \"from\": {from}, \"push\": {length}"),
        };
        let growth = if self.may_grow { ", \"growth\": true" } else { "" };
        format!("{{\"threads\": {}, \"protocol\": {VERSION}{digests}{push}{growth}}}", self.streams)
    }
}

/// Identifies one version of one file; only equality has a meaning.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct SourceVersion(pub(crate) [u8; 16]);

impl fmt::Display for SourceVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

/// The offer of a session: what the file is, and what opens a stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SessionOffer {
    /// The size of the file and how it is cut.
    pub(crate) manifest: Manifest,
    /// The modification time of the file in nanoseconds since 1970.
    pub(crate) modified: i64,
    pub(crate) version: SourceVersion,
    pub(crate) session: SessionId,
    pub(crate) secret: Secret,
    /// The digests of the file, if they are known without work.
    pub(crate) md5: Option<Md5Digest>,
    pub(crate) blake3: Option<Blake3Digest>,
    /// The permission bits of the file, without setuid and the like.
    pub(crate) mode: Option<u32>,
}

/// All permission bits.
const PERMISSIONS: u32 = 0o777;

impl SessionOffer {
    /// The JSON.
    pub(crate) fn encode(&self) -> String {
        let quoted = |digest: Option<String>| {
            digest.map_or_else(|| "null".to_owned(), |digest| format!("\"{digest}\""))
        };
        format!(
            "{{\"protocol\": {VERSION}, \"size\": {}, \"modified\": {}, \"version\": \"{}\", \"block\": {}, \
             \"session\": \"{}\", \"secret\": \"{}\", \"hash\": {}, \"blake3\": {}{}}}",
            self.manifest.size(),
            self.modified,
            self.version,
            self.manifest.block_size().bytes(),
            self.session,
            self.secret.to_hex(),
            quoted(self.md5.map(|digest| digest.to_string())),
            quoted(self.blake3.map(|digest| digest.to_string())),
            self.mode.map_or_else(String::new, |mode| format!(", \"mode\": {mode}")),
        )
    }

    /// Reads JSON that claims to be protocol 2. Unknown keys are ignored.
    pub(crate) fn decode(body: &[u8]) -> Result<Self, InvalidOffer> {
        #[derive(Deserialize)]
        struct Body {
            protocol: u64,
            size: u64,
            modified: i64,
            version: String,
            block: u64,
            session: String,
            secret: String,
            hash: Option<String>,
            blake3: Option<String>,
            mode: Option<u32>,
        }
        let body: Body =
            serde_json::from_slice(body).map_err(|_| InvalidOffer("a key is missing or mistyped"))?;
        if body.protocol != u64::from(VERSION) {
            return Err(InvalidOffer("unknown protocol"));
        }
        if i64::try_from(body.size).is_err() {
            return Err(InvalidOffer("invalid size"));
        }
        let block = BlockSize::new(body.block).ok_or(InvalidOffer("invalid block size"))?;
        Ok(Self {
            manifest: Manifest::new(body.size, block).map_err(|_| InvalidOffer("too many blocks"))?,
            modified: body.modified,
            version: from_hex(&body.version).map(SourceVersion).ok_or(InvalidOffer("invalid version"))?,
            session: SessionId::from_hex(&body.session).ok_or(InvalidOffer("invalid session"))?,
            secret: from_hex(&body.secret).map(Secret).ok_or(InvalidOffer("invalid secret"))?,
            md5: optional(body.hash).map_err(|_| InvalidOffer("invalid hash"))?,
            blake3: optional(body.blake3).map_err(|_| InvalidOffer("invalid blake3"))?,
            mode: body.mode.map(|mode| mode & PERMISSIONS),
        })
    }

    /// Whether JSON claims to be an offer of protocol 2.
    pub(crate) fn is_claimed(body: &[u8]) -> bool {
        #[derive(Deserialize)]
        struct AnyVersion {
            protocol: u64,
        }
        serde_json::from_slice(body).is_ok_and(|claim: AnyVersion| claim.protocol > 1)
    }
}

fn optional<T: FromStr>(text: Option<String>) -> Result<Option<T>, T::Err> {
    text.map(|text| text.parse()).transpose()
}

/// JSON that is not an offer of protocol 2, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("invalid offer: {0}")]
pub(crate) struct InvalidOffer(pub(super) &'static str);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{TransferRequest, v1};

    fn offer() -> SessionOffer {
        SessionOffer {
            manifest: Manifest::new(2 << 30, BlockSize::new(1 << 20).unwrap()).unwrap(),
            modified: -5,
            version: SourceVersion([0x9f; 16]),
            session: SessionId(0xa7),
            secret: Secret([0x53; 16]),
            md5: None,
            blake3: Some(Blake3Digest::of(b"")),
            mode: Some(0o640),
        }
    }

    #[test]
    fn offer_is_this_text_and_is_read_back() {
        let text = format!(
            "{{\"protocol\": 2, \"size\": 2147483648, \"modified\": -5, \"version\": \"{}\", \"block\": 1048576, \
             \"session\": \"00000000000000a7\", \"secret\": \"{}\", \"hash\": null, \
             \"blake3\": \"af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262\", \"mode\": 416}}",
            "9f".repeat(16),
            "53".repeat(16)
        );
        assert_eq!(offer().encode(), text);
        assert_eq!(SessionOffer::decode(text.as_bytes()), Ok(offer()));
        let setuid = text.replace("416", "2541");
        assert_eq!(SessionOffer::decode(setuid.as_bytes()).unwrap().mode, Some(0o755));
        let unknown = text.replace(", \"mode\": 416", "");
        assert_eq!(SessionOffer::decode(unknown.as_bytes()), Ok(SessionOffer { mode: None, ..offer() }));
        assert!(SessionOffer::is_claimed(text.as_bytes()));
        assert!(!SessionOffer::is_claimed(br#"{"hash": "x", "port": 1}"#));
    }

    #[test]
    fn values_out_of_bounds_are_rejected() {
        let text = offer().encode();
        for (good, bad) in [
            ("\"protocol\": 2", "\"protocol\": 3"),
            ("2147483648", "9223372036854775808"),
            ("2147483648", "-1"),
            ("1048576", "0"),
            ("1048576", "1048577"),
            ("\"size\": 2147483648, \"modified\": -5", "\"size\": 9223372036854775807, \"modified\": 0"),
            ("00000000000000a7", "a7"),
            ("af1349", "zz1349"),
            ("\"hash\": null", "\"hash\": \"12\""),
            ("\"secret\": \"53", "\"secret\": \"5"),
            ("\"version\"", "\"other\""),
        ] {
            let changed = text.replacen(good, bad, 1);
            assert_ne!(changed, text, "{good}");
            assert!(SessionOffer::decode(changed.as_bytes()).is_err(), "{changed}");
        }
    }

    #[test]
    fn request_is_understood_by_both_protocols() {
        let (streams, digests) = (StreamCount::default(), WholeDigests::Blake3AndMd5);
        let push = Push { from: 0, length: 524_288 };
        let request = SessionRequest { streams, digests, push, may_grow: true };
        let text = request.encode();
        assert_eq!(
            text,
            r#"{"threads": 8, "protocol": 2, "md5": true, "from": 0, "push": 524288, "growth": true}"#
        );
        assert_eq!(TransferRequest::decode(text.as_bytes()), Ok(TransferRequest::V2(request)));
        assert_eq!(v1::LegacyRequest::decode(text.as_bytes()), Ok(v1::LegacyRequest { streams }));
    }
}
