//! Just enough HTTP to send odd requests to a server and to see its answer to the byte.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use crate::sockets::{End, connect, read_to_end};

/// A server's answer, taken apart but not interpreted.
#[derive(Clone, Debug)]
pub struct Answer {
    /// All bytes as they arrived.
    pub raw: Vec<u8>,
    /// The status line without its line end.
    pub status_line: String,
    /// The number in it.
    pub status: u16,
    /// The header lines in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// What follows the empty line.
    pub body: String,
    /// How the server ended the connection.
    pub end: End,
}

impl Answer {
    /// Takes an answer apart; `None` if it is not one.
    pub fn parse(raw: &[u8], end: End) -> Option<Self> {
        let text = String::from_utf8(raw.to_vec()).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        let mut lines = head.split("\r\n");
        let status_line = lines.next()?.to_owned();
        let status = status_line.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
        let headers = lines
            .map(|line| {
                line.split_once(':').map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            })
            .collect::<Option<_>>()?;
        Some(Self { raw: raw.to_vec(), status_line, status, headers, body: body.to_owned(), end })
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Fails unless this is a refusal with that status: one line of JSON with a reason and nothing else.
    pub fn assert_refusal(&self, statuses: &[u16], context: &str) {
        assert!(statuses.contains(&self.status), "{context}: {statuses:?} expected, got {self:?}");
        let json: serde_json::Value = serde_json::from_str(self.body.trim_end_matches('\n'))
            .unwrap_or_else(|error| panic!("{context}: the body is no JSON ({error}): {:?}", self.body));
        let reason = json.get("error").and_then(serde_json::Value::as_str).unwrap_or_default();
        assert!(!reason.is_empty(), "{context}: no reason in {:?}", self.body);
        assert_eq!(json.as_object().map(serde_json::Map::len), Some(1), "{context}: {:?}", self.body);
        assert_eq!(self.body.trim_end_matches('\n').lines().count(), 1, "{context}: {:?}", self.body);
    }
}

/// Reads a message's head with its empty line, and not a byte more; `None` if the connection ends before.
pub fn read_head(from: &mut impl Read) -> Option<Vec<u8>> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        from.read_exact(&mut byte).ok()?;
        head.extend(byte);
    }
    Some(head)
}

/// The length of the body that a head announces; 0 if it announces none.
pub fn body_length(head: &[u8]) -> usize {
    header(head, "content-length").and_then(|value| value.parse().ok()).unwrap_or(0)
}

/// Whether a head requests, or grants, the upgrade of its connection to streams.
pub fn is_upgrade(head: &[u8]) -> bool {
    header(head, "upgrade").is_some_and(|protocol| protocol == "dt2")
}

/// The value of a header in a head, both in lower case.
fn header(head: &[u8], name: &str) -> Option<String> {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    head.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned()))
}

/// Reads a request with its body, in whatever segments it arrives; `None` if the connection ends before.
pub fn read_request(from: &mut impl Read) -> Option<(Vec<u8>, Vec<u8>)> {
    let head = read_head(from)?;
    let mut body = vec![0; body_length(&head)];
    from.read_exact(&mut body).ok()?;
    Some((head, body))
}

/// The time between two segments that must not become one.
pub const BETWEEN_SEGMENTS: Duration = Duration::from_millis(20);

/// What the client does after its last byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Afterwards {
    /// Leaves the connection open.
    Wait,
    /// Shuts its own direction down.
    HalfClose,
}

/// Sends `segments` as they are, each for itself, and reads the answer until the server closes.
pub fn exchange(addr: SocketAddr, segments: &[&[u8]], afterwards: Afterwards) -> Answer {
    let shown: Vec<_> = segments.iter().map(|s| String::from_utf8_lossy(&s[..s.len().min(200)])).collect();
    let stream = connect(addr);
    send(&stream, segments, afterwards);
    let received = read_to_end(&stream);
    let text = String::from_utf8_lossy(&received.bytes).into_owned();
    Answer::parse(&received.bytes, received.end)
        .unwrap_or_else(|| panic!("no HTTP answer to {shown:?}: {text:?}, {:?}", received.end))
}

/// Sends `segments`; what the server no longer takes is dropped, since its answer may already be on its way.
pub fn send(mut stream: &TcpStream, segments: &[&[u8]], afterwards: Afterwards) {
    for (n, segment) in segments.iter().enumerate() {
        if n > 0 {
            std::thread::sleep(BETWEEN_SEGMENTS);
        }
        if stream.write_all(segment).is_err() {
            return;
        }
    }
    if afterwards == Afterwards::HalfClose {
        // A server that has answered and closed already leaves nothing to shut down.
        let _ = stream.shutdown(Shutdown::Write);
    }
}
