//! The messages of protocol 1: the bodies of the request and of its response, and of refusals.

use serde::Deserialize;
use serde_json::Value;

use crate::digest::Md5Digest;
use crate::manifest::StreamCount;

/// The largest body of a request or a response in bytes: a hundred times what either needs.
pub(crate) const MAX_BODY: usize = 16 << 10;

/// `{"threads": N}`: requests the file over N streams.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LegacyRequest {
    pub(crate) streams: StreamCount,
}

impl LegacyRequest {
    /// The body, exactly as the original client writes it.
    pub(crate) fn encode(self) -> String {
        format!("{{\"threads\": {}}}", self.streams)
    }

    /// Parses a body; unknown keys are ignored.
    #[cfg(test)]
    pub(crate) fn decode(body: &[u8]) -> Result<Self, InvalidRequest> {
        Self::of(&serde_json::from_slice(body).map_err(|_| InvalidRequest::NotJson)?)
    }

    /// The request in a body that is parsed as JSON already.
    pub(super) fn of(value: &Value) -> Result<Self, InvalidRequest> {
        let object = value.as_object().ok_or(InvalidRequest::NotJson)?;
        let threads = object.get("threads").ok_or(InvalidRequest::NoThreads)?;
        let count = threads.as_u64().ok_or(InvalidRequest::Threads)?;
        let streams = StreamCount::new(count).map_err(|_| InvalidRequest::Threads)?;
        Ok(Self { streams })
    }
}

/// Why the body of a request is invalid; the text is sent to the peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum InvalidRequest {
    #[error("the body is not a JSON object")]
    NotJson,
    #[error("the body has no \"threads\"")]
    NoThreads,
    #[error("\"threads\" must be a whole number from 1 to 255")]
    Threads,
    #[error("\"protocol\" must be a whole number, at least 1")]
    Protocol,
    #[error("\"md5\" must be true or false")]
    Md5,
    #[error("\"growth\" must be true or false")]
    Growth,
    #[error("\"from\" and \"push\" must be whole numbers, at least 0")]
    Push,
}

/// `{"hash": "<md5>", "port": P}`: the digest of the file, and the port of its streams.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LegacyAnswer {
    pub(crate) md5: Md5Digest,
    pub(crate) port: u16,
}

impl LegacyAnswer {
    /// The body, exactly as the original server writes it.
    pub(crate) fn encode(self) -> String {
        format!("{{\"hash\": \"{}\", \"port\": {}}}", self.md5, self.port)
    }

    /// Parses a body; unknown keys are ignored.
    pub(crate) fn decode(body: &[u8]) -> Result<Self, InvalidAnswer> {
        #[derive(Deserialize)]
        struct Body {
            hash: String,
            port: u64,
        }
        let body: Body = serde_json::from_slice(body).map_err(|_| InvalidAnswer)?;
        let md5 = body.hash.parse().map_err(|_| InvalidAnswer)?;
        let port = u16::try_from(body.port).ok().filter(|port| *port != 0).ok_or(InvalidAnswer)?;
        Ok(Self { md5, port })
    }
}

/// A body that is not an answer of protocol 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the answer is not {{\"hash\": \"<md5>\", \"port\": <port>}}")]
pub(crate) struct InvalidAnswer;

/// The body of a refusal: one line of JSON with a reason for users.
pub(crate) fn encode_refusal(reason: &str) -> String {
    serde_json::json!({ "error": reason }).to_string()
}

/// The reason in the body of a refusal, if there is one: at most 200 characters, without control characters.
pub(crate) fn decode_refusal(body: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(body).ok()?;
    value.get("error")?.as_str().map(printable)
}

/// Text from a peer as it may be shown to a user: at most 200 characters, without control characters.
pub(crate) fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_those_of_the_original_programs() {
        let streams = StreamCount::new(8).unwrap();
        assert_eq!(LegacyRequest { streams }.encode(), r#"{"threads": 8}"#);
        let md5 = "bf02e98e522704c376e82dfef2cfb240".parse().unwrap();
        let answer = r#"{"hash": "bf02e98e522704c376e82dfef2cfb240", "port": 36931}"#;
        assert_eq!(LegacyAnswer { md5, port: 36931 }.encode(), answer);
        assert_eq!(LegacyAnswer::decode(answer.as_bytes()), Ok(LegacyAnswer { md5, port: 36931 }));
    }

    #[test]
    fn request_names_1_to_255_threads() {
        for (body, expected) in [
            (r#"{"threads": 1}"#, Ok(1)),
            (r#"{"threads":255,"later":[1]}"#, Ok(255)),
            (r#"{"threads": 0}"#, Err(InvalidRequest::Threads)),
            (r#"{"threads": 256}"#, Err(InvalidRequest::Threads)),
            (r#"{"threads": -3}"#, Err(InvalidRequest::Threads)),
            (r#"{"threads": 2.5}"#, Err(InvalidRequest::Threads)),
            (r#"{"threads": true}"#, Err(InvalidRequest::Threads)),
            (r#"{"threads": "8"}"#, Err(InvalidRequest::Threads)),
            (r#"{"threads": 99999999999999999999}"#, Err(InvalidRequest::Threads)),
            (r"{}", Err(InvalidRequest::NoThreads)),
            (r"[8]", Err(InvalidRequest::NotJson)),
            (r#"{"threads": 8"#, Err(InvalidRequest::NotJson)),
            ("", Err(InvalidRequest::NotJson)),
        ] {
            let decoded = LegacyRequest::decode(body.as_bytes()).map(|request| request.streams.value());
            assert_eq!(decoded, expected, "{body}");
        }
    }

    #[test]
    fn other_answers_are_invalid() {
        for body in [
            "",
            "{}",
            r#"{"hash": "bf02", "port": 1}"#,
            r#"{"hash": "bf02e98e522704c376e82dfef2cfb240", "port": 0}"#,
            r#"{"hash": "bf02e98e522704c376e82dfef2cfb240", "port": 65536}"#,
            r#"{"hash": "bf02e98e522704c376e82dfef2cfb240", "port": "80"}"#,
            r#"{"hash": null, "port": 80}"#,
        ] {
            assert_eq!(LegacyAnswer::decode(body.as_bytes()), Err(InvalidAnswer), "{body}");
        }
    }

    #[test]
    fn refusal_is_one_short_line() {
        let body = encode_refusal("no such file: \"a\"");
        assert_eq!(body, r#"{"error":"no such file: \"a\""}"#);
        assert_eq!(decode_refusal(body.as_bytes()).as_deref(), Some("no such file: \"a\""));
        let long = encode_refusal(&"x\n\u{1b}".repeat(900));
        assert_eq!(decode_refusal(long.as_bytes()), Some("x".repeat(200)));
        assert_eq!(decode_refusal(b"<html>"), None);
    }
}
