//! The client's half of the control conversation: one `POST`, one answer.
//!
//! The request is written by hand because no HTTP library sends a target without a leading slash, which the original
//! server needs for names relative to its folder. The answer is read as the original sends it: HTTP/1.0, perhaps
//! without a length, perhaps in several segments, perhaps ended only half a second later.

use std::ffi::OsStr;
use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::client::address::ServerAddress;
use crate::error::TransferError;
use crate::proto::{SIZE_HEADER, TARGET_HEADER, Target, v1, v2};
use crate::transport::connect;

/// The largest answer head, in bytes.
const MAX_HEAD: usize = 16 << 10;

/// The most header lines of an answer.
const MAX_HEADERS: usize = 64;

/// A control connection to a server.
#[derive(Debug)]
pub(crate) struct Control {
    server: ServerAddress,
    stream: TcpStream,
    peer: SocketAddr,
}

/// What the server offers, in the protocol that it has chosen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Offer {
    V1(Transfer),
    V2(Session),
}

/// A transfer of protocol 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Transfer {
    pub(crate) answer: v1::Answer,
    /// The file's size; an original server does not tell it.
    pub(crate) size: Option<u64>,
    /// Where the streams are served.
    pub(crate) data: SocketAddr,
}

/// A session of protocol 2.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Session {
    pub(crate) answer: v2::Answer,
    /// The control port, as it was reached.
    pub(crate) control: SocketAddr,
    /// The data port of the same host.
    pub(crate) data: SocketAddr,
}

impl Control {
    /// Connects to `server`.
    pub(crate) async fn open(server: &ServerAddress, limit: Duration) -> Result<Self, TransferError> {
        let stream = connect(server, limit).await?;
        let unreachable = |source| TransferError::Unreachable { server: server.to_string(), source };
        let peer = stream.peer_addr().map_err(unreachable)?;
        // Until the answer is there, giving up is a reset: a mere end would look like a client that has finished its
        // request and waits, and the server would hash a big file for nobody.
        stream.set_zero_linger().map_err(unreachable)?;
        Ok(Self { server: server.clone(), stream, peer })
    }

    /// The address that was reached.
    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Asks for the file `name` with a request's `body`, and waits for the answer, at most until `limit` has passed.
    ///
    /// A server of protocol 1 reads and hashes the whole file before it answers, so the limit must be generous.
    pub(crate) async fn ask(
        &mut self,
        name: &OsStr,
        body: &str,
        limit: Duration,
    ) -> Result<Offer, TransferError> {
        let deadline = Instant::now() + limit;
        let exchange = async {
            // A server may refuse before it has read everything; then the answer counts, not the failed write.
            let written = self.write(name, body).await;
            let received = self.read().await;
            match received {
                Ok(received) if !received.is_empty() => Ok(received),
                received => written.and(received).map_err(|error| self.lost(Some(error))),
            }
        };
        let read = timeout_at(deadline, exchange).await;
        let received = read.map_err(|_| TransferError::TimedOut {
            server: self.server.to_string(),
            activity: "its answer was awaited",
            waited: limit,
        })??;
        // From now on an end is an end.
        let _ = socket2::SockRef::from(&self.stream).set_linger(None);
        self.check_journal(name, &received)
    }

    async fn write(&mut self, name: &OsStr, body: &str) -> io::Result<()> {
        let target = Target::of(name.as_bytes());
        let marked = target.marking().value().map(|value| format!("{TARGET_HEADER}: {value}\r\n"));
        let marked = marked.unwrap_or_default();
        let message = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nAccept-Encoding: identity\r\nConnection: close\r\n{marked}Content-Length: {}\r\n\r\n{body}",
            target.text(),
            self.server,
            body.len(),
        );
        self.stream.write_all(message.as_bytes()).await
    }

    /// Reads until the answer is complete by its length, by being valid, or by the connection's end.
    async fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut received = Vec::with_capacity(1 << 10);
        loop {
            if received.len() > MAX_HEAD + v1::MAX_BODY || is_complete(&received) {
                return Ok(received);
            }
            match self.stream.read_buf(&mut received).await {
                Ok(0) => return Ok(received),
                Ok(_) => {}
                // A server that closes without having read every byte resets; what came before it is the answer.
                Err(_) if !received.is_empty() => return Ok(received),
                Err(error) => return Err(error),
            }
        }
    }

    fn check_journal(&self, name: &OsStr, received: &[u8]) -> Result<Offer, TransferError> {
        let server = || self.server.to_string();
        let broken = |what: &str| TransferError::Protocol { server: server(), what: what.to_owned() };
        if received.is_empty() {
            return Err(self.lost(None));
        }
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut head = httparse::Response::new(&mut headers);
        let body = match head.parse(received) {
            Ok(httparse::Status::Complete(len)) => received.get(len..).unwrap_or_default(),
            Ok(httparse::Status::Partial) => return Err(broken("its answer is cut off or endless")),
            Err(_) => return Err(broken("its answer is not HTTP")),
        };
        let name = || name.to_string_lossy().into_owned();
        match head.code.unwrap_or(0) {
            200 => {}
            401 => return Err(TransferError::Unauthorized { server: server() }),
            403 => return Err(TransferError::Forbidden { server: server(), name: name() }),
            404 => return Err(TransferError::NotFound { server: server(), name: name() }),
            409 => return Err(TransferError::SourceChanged { server: server(), name: name() }),
            status => {
                let reason = v1::decode_refusal(body).unwrap_or_else(|| "it gave no reason".to_owned());
                return Err(TransferError::Refused { server: server(), status, reason });
            }
        }
        // The whole address with another port: a link-local one has a scope too.
        let at_port = |port| {
            let mut data = self.peer;
            data.set_port(port);
            data
        };
        if v2::Answer::is_claimed(body) {
            let answer = v2::Answer::decode(body).map_err(|error| broken(&error.to_string()))?;
            let data = at_port(answer.port);
            return Ok(Offer::V2(Session { answer, control: self.peer, data }));
        }
        let answer = v1::Answer::decode(body).map_err(|error| broken(&error.to_string()))?;
        let size = match header(head.headers, SIZE_HEADER) {
            None => None,
            Some(value) => Some(value.parse().map_err(|_| broken("the size it named is not a number"))?),
        };
        Ok(Offer::V1(Transfer { answer, size, data: at_port(answer.port) }))
    }

    fn lost(&self, source: Option<io::Error>) -> TransferError {
        TransferError::ConnectionLost { server: self.server.to_string(), stream: None, received: 0, source }
    }
}

/// Whether more bytes could not change what the answer says.
fn is_complete(received: &[u8]) -> bool {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    match head.parse(received) {
        Ok(httparse::Status::Complete(len)) => {
            let body = received.get(len..).unwrap_or_default();
            match header(head.headers, "content-length").map(str::parse::<usize>) {
                Some(Ok(length)) => body.len() >= length,
                _ => v1::Answer::decode(body).is_ok(),
            }
        }
        Ok(httparse::Status::Partial) => received.len() > MAX_HEAD,
        Err(_) => true,
    }
}

fn header<'a>(headers: &[httparse::Header<'a>], name: &str) -> Option<&'a str> {
    let header = headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
    str::from_utf8(header.value).ok().map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_complete_by_length_or_by_sense() {
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
            ("220 ftp.example ready\r\n".to_owned(), true),
            (format!("HTTP/1.0 200 OK\r\nX: {}", "x".repeat(MAX_HEAD)), true),
        ] {
            assert_eq!(is_complete(received.as_bytes()), expected, "{received}");
        }
    }
}
