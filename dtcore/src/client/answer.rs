//! What an answer to the request is: an offer, a refusal, or something that no server of this program sends.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::time::Duration;

use crate::failure::Failure;
use crate::proto::v2::{Response, SessionOffer};
use crate::proto::{SIZE_HEADER, v1};

/// The largest head of an answer, in bytes.
pub(super) const MAX_HEAD: usize = 16 << 10;

/// The most header lines of an answer.
const MAX_HEADERS: usize = 64;

/// The reason of a refusal that is no server's of this program.
const NO_REASON: &str = "no reason given";

/// The error of `server` if it refuses even a target that begins with a slash, without a reason.
pub(super) fn refused_twice(server: &str) -> Failure {
    stranger(server, "it answered with status 400 and no reason".to_owned())
}

/// Whether a request was refused as something that is no server of this program refuses one that it does not understand.
pub(super) fn is_not_understood(error: &Failure) -> bool {
    matches!(error, Failure::Refused { status: 400, reason, .. } if reason == NO_REASON)
}

/// What an answer was, as HTTP.
#[derive(Debug)]
pub(super) enum Parsed {
    V1(LegacyOffer),
    V2(SessionOffer),
    /// Frames follow, of which these bytes were read already.
    Switched(Vec<u8>),
}

/// A transfer of protocol 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LegacyOffer {
    pub(crate) answer: v1::LegacyAnswer,
    /// The file's size, which an original server does not report.
    pub(crate) size: Option<u64>,
    /// Where the streams are served.
    pub(crate) data: SocketAddr,
}

/// Reads the answer of `server`, which is at `peer`, to a request of `name`.
pub(super) fn parse(
    server: &str,
    peer: SocketAddr,
    name: &OsStr,
    received: &[u8],
) -> Result<Parsed, Failure> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let len = head_len(server, received, head.parse(received))?;
    let body = received.get(len..).unwrap_or_default();
    let server = || server.to_owned();
    let invalid = |what: &str| Failure::Protocol { server: server(), what: what.to_owned() };
    let name = || name.to_string_lossy().into_owned();
    let status = head.code.unwrap_or(0);
    let reason = v1::decode_refusal(body);
    let more = |obvious: &str| reason.clone().filter(|reason| reason != obvious).unwrap_or_default();
    match status {
        101 => return Ok(Parsed::Switched(body.to_vec())),
        200 => {}
        401 => return Err(Failure::Unauthorized { server: server() }),
        403 => {
            let reason = more("permission denied");
            return Err(Failure::Forbidden { server: server(), name: name(), reason });
        }
        404 => {
            return Err(Failure::NotFound { server: server(), name: name(), reason: more("no such file") });
        }
        409 => return Err(Failure::SourceChanged { server: server(), name: name() }),
        // 400 is what a proxy says to a target that it does not understand, and the rest what passes.
        status if reason.is_none() && !matches!(status, 400 | 429 | 500 | 502..=504) => {
            return Err(stranger(&server(), status_line(&head)));
        }
        status => {
            let reason = reason.unwrap_or_else(|| NO_REASON.to_owned());
            let retry_after = retry_after(head.headers);
            return Err(Failure::Refused { server: server(), status, reason, retry_after });
        }
    }
    if SessionOffer::is_claimed(body) {
        let offer = SessionOffer::decode(body).map_err(|error| invalid(&error.to_string()))?;
        return Ok(Parsed::V2(offer));
    }
    if !body.trim_ascii_start().starts_with(b"{") {
        let kind = header(head.headers, "content-type").map(v1::printable);
        let kind = kind.map(|kind| format!(" ({kind})")).unwrap_or_default();
        let what = format!("it answered with something else than a transfer{kind}");
        return Err(stranger(&server(), what));
    }
    let answer = v1::LegacyAnswer::decode(body).map_err(|error| invalid(&error.to_string()))?;
    let size = match header(head.headers, SIZE_HEADER) {
        None => None,
        Some(value) => Some(value.parse().map_err(|_| invalid("the size that it reports is not a number"))?),
    };
    // The complete address with another port: a link-local one has a scope too.
    let mut data = peer;
    data.set_port(answer.port);
    Ok(Parsed::V1(LegacyOffer { answer, size, data }))
}

/// Reads the answer of `server` to the request to receive `name`: what follows the switch of protocols.
pub(super) fn parse_upload(server: &str, name: &OsStr, received: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let len = head_len(server, received, head.parse(received))?;
    let body = received.get(len..).unwrap_or_default();
    match (head.code.unwrap_or(0), v1::decode_refusal(body)) {
        (101, _) => Ok(body.to_vec()),
        (401, _) => Err(Failure::Unauthorized { server: server.to_owned() }),
        (status, reason) if reason.is_some() || matches!(status, 429 | 502..=504) => {
            let (server, name) = (server.to_owned(), name.to_string_lossy().into_owned());
            let reason = reason.unwrap_or_else(|| NO_REASON.to_owned());
            let retry_after = retry_after(head.headers);
            Err(Failure::UploadRefused { server, name, status, reason, retry_after })
        }
        (_, _) => Err(stranger(server, status_line(&head))),
    }
}

/// The error of an answer to the request to list `name` that is no listing; `false` if it is not complete.
pub(super) fn list_refusal(server: &str, name: &OsStr, received: &[u8]) -> Result<bool, Failure> {
    if !is_complete(received) {
        return Ok(false);
    }
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let len = head_len(server, received, head.parse(received))?;
    let (server, name) = (server.to_owned(), name.to_string_lossy().into_owned());
    let reason = v1::decode_refusal(received.get(len..).unwrap_or_default());
    Err(match (head.code.unwrap_or(0), reason) {
        (401, _) => Failure::Unauthorized { server },
        (403, Some(reason)) => Failure::Forbidden { server, name, reason },
        (404, Some(reason)) => Failure::NotFound { server, name, reason },
        (status, Some(reason)) => {
            Failure::Refused { server, status, reason, retry_after: retry_after(head.headers) }
        }
        (_, None) => stranger(&server, status_line(&head)),
    })
}

/// The length of the head of an answer, as it was `parsed` of what was `received`.
pub(super) fn head_len(
    server: &str,
    received: &[u8],
    parsed: httparse::Result<usize>,
) -> Result<usize, Failure> {
    match parsed {
        Ok(httparse::Status::Complete(len)) => Ok(len),
        Ok(httparse::Status::Partial) => {
            let what = "its answer is cut off or endless".to_owned();
            Err(Failure::Protocol { server: server.to_owned(), what })
        }
        Err(_) => match received.first_chunk().map(Response::decode) {
            // The server has read nothing, as it cannot serve another connection now.
            Some(Ok(Response::Refused(..))) => {
                let (server, reason) = (server.to_owned(), "too many connections".to_owned());
                Err(Failure::Refused { server, status: 503, reason, retry_after: None })
            }
            _ => Err(stranger(server, banner(received))),
        },
    }
}

/// The error of something that is no server of this program.
fn stranger(server: &str, what: String) -> Failure {
    Failure::NotDtserver { server: server.to_owned(), what }
}

/// What such an answer says.
fn status_line(head: &httparse::Response<'_, '_>) -> String {
    let status = head.code.unwrap_or(0);
    let phrase = v1::printable(head.reason.unwrap_or_default());
    let location = header(head.headers, "location").map(|to| format!(", to {}", v1::printable(to)));
    let proxy = if status == 407 { "; a proxy requires authentication" } else { "" };
    format!("it answered with status {status} {phrase}{}{proxy}", location.unwrap_or_default())
}

/// After how long the server wants to be asked again, if it says so.
fn retry_after(headers: &[httparse::Header<'_>]) -> Option<Duration> {
    header(headers, "retry-after")?.parse().ok().map(Duration::from_secs)
}

/// What begins with `received` and is no HTTP.
fn banner(received: &[u8]) -> String {
    let known = match received {
        [0x15 | 0x16, 0x03, ..] => Some("TLS"),
        _ if received.starts_with(b"SSH-") => Some("SSH"),
        _ if received.starts_with(b"@RSYNCD") => Some("rsync"),
        _ if received.starts_with(b"220") => Some("FTP or SMTP"),
        _ => None,
    };
    known.map_or_else(|| "its answer is not HTTP".to_owned(), |known| format!("it speaks {known}"))
}

/// Whether more bytes could not change what the answer says.
pub(super) fn is_complete(received: &[u8]) -> bool {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    match head.parse(received) {
        Ok(httparse::Status::Complete(_)) if head.code == Some(101) => true,
        Ok(httparse::Status::Complete(len)) => {
            let body = received.get(len..).unwrap_or_default();
            match header(head.headers, "content-length").map(str::parse::<usize>) {
                Some(Ok(length)) => body.len() >= length,
                _ => v1::LegacyAnswer::decode(body).is_ok(),
            }
        }
        Ok(httparse::Status::Partial) => received.len() > MAX_HEAD,
        Err(_) => true,
    }
}

pub(super) fn header<'a>(headers: &[httparse::Header<'a>], name: &str) -> Option<&'a str> {
    let found = headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
    str::from_utf8(found.value).ok().map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_is_complete_by_length_or_by_content() {
        let json = r#"{"hash": "bf02e98e522704c376e82dfef2cfb240", "port": 36931}"#;
        for (received, expected) in [
            (String::new(), false),
            ("HTTP/1.0 200 OK\r\nServer: x\r\n".to_owned(), false),
            ("HTTP/1.0 200 OK\r\nServer: x\r\n\r\n".to_owned(), false),
            (format!("HTTP/1.0 200 OK\r\n\r\n{}", &json[..40]), false),
            (format!("HTTP/1.0 200 OK\r\n\r\n{json}"), true),
            (format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{json}", json.len() + 1), false),
            (format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{json}", json.len()), true),
            ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(), true),
            ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: dt2\r\n\r\n".to_owned(), true),
            ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: dt2\r\n".to_owned(), false),
            ("220 ftp.example ready\r\n".to_owned(), true),
            (format!("HTTP/1.0 200 OK\r\nX: {}", "x".repeat(MAX_HEAD)), true),
        ] {
            assert_eq!(is_complete(received.as_bytes()), expected, "{received}");
        }
    }

    #[test]
    fn answer_of_something_else_is_called_that() {
        let peer = "127.0.0.1:9000".parse().unwrap();
        for (received, expected) in [
            ("SSH-2.0-OpenSSH_9.6\r\n", "it speaks SSH"),
            ("\x15\x03\x01\0\x02\x02\x46", "it speaks TLS"),
            ("220 mail.example ESMTP\r\n", "it speaks FTP or SMTP"),
            ("@RSYNCD: 31.0\n", "it speaks rsync"),
            ("RFB 003.008\n", "its answer is not HTTP"),
            (
                "HTTP/1.0 501 Unsupported method ('POST')\r\n\r\n<html>",
                "it answered with status 501 Unsupported method ('POST')",
            ),
            (
                "HTTP/1.1 302 Found\r\nLocation: https://login.example/\r\nContent-Length: 0\r\n\r\n",
                "it answered with status 302 Found, to https://login.example/",
            ),
            (
                "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
                "it answered with status 407 Proxy Authentication Required; a proxy requires authentication",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<!doctype html>",
                "it answered with something else than a transfer (text/html; charset=utf-8)",
            ),
            ("HTTP/1.0 200 OK\r\n\r\nhello", "it answered with something else than a transfer"),
            ("HTTP/1.0 204 No Content\r\n\r\n", "it answered with status 204 No Content"),
            ("HTTP/1.1 426 Upgrade Required\r\n\r\n", "it answered with status 426 Upgrade Required"),
            (
                "HTTP/1.1 415 Unsupported Media Type\r\n\r\n{}",
                "it answered with status 415 Unsupported Media Type",
            ),
        ] {
            let error = parse("host:9000", peer, OsStr::new("f"), received.as_bytes()).unwrap_err();
            assert_eq!(error.to_string(), format!("host:9000 is no dtserver: {expected}"));
        }
    }

    #[test]
    fn reason_and_patience_of_a_refusal_are_kept() {
        let peer = "127.0.0.1:9000".parse().unwrap();
        let refused = |head: &str, body: &str| {
            let answer = format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            parse("host:9000", peer, OsStr::new("d"), answer.as_bytes()).unwrap_err()
        };
        let directory = refused("404 Not Found", "{\"error\":\"it is a directory\"}");
        assert_eq!(directory.to_string(), "host:9000 has no file \"d\": it is a directory");
        let missing = refused("404 Not Found", "{\"error\":\"no such file\"}");
        assert_eq!(missing.to_string(), "host:9000 has no file \"d\"");
        let busy = refused("429 Too Many Requests\r\nRetry-After: 7", "");
        assert!(matches!(busy, Failure::Refused { retry_after: Some(after), .. } if after.as_secs() == 7));
    }
}
