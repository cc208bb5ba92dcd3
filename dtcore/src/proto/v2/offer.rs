//! The bodies of the request for a session, and of the answer that grants it.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use super::VERSION;
use crate::digest::{Blake3Digest, Md5Digest};
use crate::manifest::{BlockSize, Manifest, StreamCount};
use crate::proto::v2::frame::WholeDigests;
use crate::proto::v2::hello::{InvalidHex, Secret, SessionId, hex};

/// The file shall come over so many streams.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Request {
    pub(crate) streams: StreamCount,
    /// Which digests of the whole file will be asked for in the end.
    pub(crate) digests: WholeDigests,
}

impl Request {
    /// The body; a server of protocol 1 finds in it what it needs.
    pub(crate) fn encode(self) -> String {
        let wishes = match self.digests {
            WholeDigests::Blake3 => "",
            WholeDigests::Blake3AndMd5 => ", \"md5\": true",
        };
        format!("{{\"threads\": {}, \"protocol\": {VERSION}{wishes}}}", self.streams)
    }
}

/// What tells one version of one file from another; only equality counts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct SourceVersion([u8; 16]);

impl From<[u8; 16]> for SourceVersion {
    fn from(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl From<SourceVersion> for [u8; 16] {
    fn from(version: SourceVersion) -> Self {
        version.0
    }
}

impl fmt::Display for SourceVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for SourceVersion {
    type Err = InvalidHex;

    fn from_str(text: &str) -> Result<Self, InvalidHex> {
        hex(text).map(Self)
    }
}

/// A granted session: what the file is, and how its streams get to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Answer {
    /// The file's size and how it is cut.
    pub(crate) manifest: Manifest,
    /// The file's modification time in nanoseconds since 1970.
    pub(crate) modified: i64,
    pub(crate) version: SourceVersion,
    /// The data port, on the host that answers.
    pub(crate) port: u16,
    pub(crate) session: SessionId,
    pub(crate) secret: Secret,
    /// The file's digests, as far as they are known without work.
    pub(crate) md5: Option<Md5Digest>,
    pub(crate) blake3: Option<Blake3Digest>,
}

impl Answer {
    /// The body.
    pub(crate) fn encode(&self) -> String {
        let quoted = |digest: Option<String>| {
            digest.map_or_else(|| "null".to_owned(), |digest| format!("\"{digest}\""))
        };
        format!(
            "{{\"protocol\": {VERSION}, \"size\": {}, \"modified\": {}, \"version\": \"{}\", \"block\": {}, \
             \"port\": {}, \"session\": \"{}\", \"secret\": \"{}\", \"hash\": {}, \"blake3\": {}}}",
            self.manifest.size(),
            self.modified,
            self.version,
            self.manifest.block_size().bytes(),
            self.port,
            self.session,
            self.secret.to_hex(),
            quoted(self.md5.map(|digest| digest.to_string())),
            quoted(self.blake3.map(|digest| digest.to_string())),
        )
    }

    /// Reads a body that says it is protocol 2; keys it does not know are ignored.
    pub(crate) fn decode(body: &[u8]) -> Result<Self, InvalidAnswer> {
        #[derive(Deserialize)]
        struct Body {
            protocol: u64,
            size: u64,
            modified: i64,
            version: String,
            block: u64,
            port: u64,
            session: String,
            secret: String,
            hash: Option<String>,
            blake3: Option<String>,
        }
        let body: Body = serde_json::from_slice(body).map_err(|_| InvalidAnswer("it lacks something"))?;
        if body.protocol != u64::from(VERSION) {
            return Err(InvalidAnswer("its protocol is another"));
        }
        if i64::try_from(body.size).is_err() {
            return Err(InvalidAnswer("its size is no file's"));
        }
        let block = BlockSize::new(body.block).map_err(|_| InvalidAnswer("its block size is none"))?;
        let port = u16::try_from(body.port).ok().filter(|port| *port != 0);
        Ok(Self {
            manifest: Manifest::new(body.size, block)
                .map_err(|_| InvalidAnswer("its blocks are too many"))?,
            modified: body.modified,
            version: body.version.parse().map_err(|_| InvalidAnswer("its version is none"))?,
            port: port.ok_or(InvalidAnswer("its port is none"))?,
            session: body.session.parse().map_err(|_| InvalidAnswer("its session is none"))?,
            secret: body.secret.parse().map_err(|_| InvalidAnswer("its secret is none"))?,
            md5: optional(body.hash).map_err(|_| InvalidAnswer("its hash is none"))?,
            blake3: optional(body.blake3).map_err(|_| InvalidAnswer("its blake3 is none"))?,
        })
    }

    /// Whether a body claims to be an answer of protocol 2.
    pub(crate) fn is_claimed(body: &[u8]) -> bool {
        #[derive(Deserialize)]
        struct Body {
            protocol: u64,
        }
        serde_json::from_slice(body).is_ok_and(|body: Body| body.protocol > 1)
    }
}

fn optional<T: FromStr>(text: Option<String>) -> Result<Option<T>, T::Err> {
    text.map(|text| text.parse()).transpose()
}

/// A body that is no answer of protocol 2, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("its answer is not one of protocol 2: {0}")]
pub(crate) struct InvalidAnswer(&'static str);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{TransferRequest, v1};

    fn answer() -> Answer {
        Answer {
            manifest: Manifest::new(2 << 30, BlockSize::new(1 << 20).unwrap()).unwrap(),
            modified: -5,
            version: SourceVersion([0x9f; 16]),
            port: 36931,
            session: SessionId::from(0xa7),
            secret: Secret::from([0x53; 16]),
            md5: None,
            blake3: Some(Blake3Digest::of(b"")),
        }
    }

    #[test]
    fn an_answer_is_this_text_and_is_read_back() {
        let text = format!(
            "{{\"protocol\": 2, \"size\": 2147483648, \"modified\": -5, \"version\": \"{}\", \"block\": 1048576, \
             \"port\": 36931, \"session\": \"00000000000000a7\", \"secret\": \"{}\", \"hash\": null, \
             \"blake3\": \"af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262\"}}",
            "9f".repeat(16),
            "53".repeat(16)
        );
        assert_eq!(answer().encode(), text);
        assert_eq!(Answer::decode(text.as_bytes()), Ok(answer()));
        assert!(Answer::is_claimed(text.as_bytes()));
        assert!(!Answer::is_claimed(br#"{"hash": "x", "port": 1}"#));
    }

    #[test]
    fn what_is_out_of_bounds_is_refused() {
        let text = answer().encode();
        for (good, bad) in [
            ("\"protocol\": 2", "\"protocol\": 3"),
            ("2147483648", "9223372036854775808"),
            ("2147483648", "-1"),
            ("1048576", "0"),
            ("1048576", "1048577"),
            ("\"size\": 2147483648, \"modified\": -5", "\"size\": 9223372036854775807, \"modified\": 0"),
            ("36931", "0"),
            ("36931", "65536"),
            ("00000000000000a7", "a7"),
            ("af1349", "zz1349"),
            ("\"hash\": null", "\"hash\": \"12\""),
            ("\"secret\": \"53", "\"secret\": \"5"),
            ("\"version\"", "\"other\""),
        ] {
            let changed = text.replacen(good, bad, 1);
            assert_ne!(changed, text, "{good}");
            assert!(Answer::decode(changed.as_bytes()).is_err(), "{changed}");
        }
    }

    #[test]
    fn a_request_is_understood_by_both_protocols() {
        let request = Request { streams: StreamCount::default(), digests: WholeDigests::Blake3AndMd5 };
        let text = request.encode();
        assert_eq!(text, r#"{"threads": 8, "protocol": 2, "md5": true}"#);
        assert_eq!(TransferRequest::decode(text.as_bytes()), Ok(TransferRequest::V2(request)));
        let old = v1::Request { streams: StreamCount::default() };
        assert_eq!(v1::Request::decode(text.as_bytes()), Ok(old));
    }
}
