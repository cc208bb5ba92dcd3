//! The client's half of the request: one `POST`, one answer.
//!
//! The request is written by hand because no HTTP library sends a target without a leading slash, which the original
//! server needs for names relative to its folder. The answer is read as the original sends it: HTTP/1.0, possibly
//! without a length, possibly in several segments, possibly ended only half a second later. A server of protocol 2 answers with
//! a switch of protocols, and the offer follows as the first frame on the same connection.

use std::ffi::{OsStr, OsString};
use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::address::ServerAddress;
use super::answer::{self, LegacyOffer, Parsed};
use crate::failure::{Awaited, Failure};
use crate::proto::v2::{
    FRAME_LEN, PAYLOAD_CHECK_LEN, Request, Response, SessionOffer, UPGRADE, checked_payload, reason_of,
};
use crate::proto::{TARGET_HEADER, Target, v1};
use crate::receive::EndNotice;
use crate::transport::{Connected, Connection, connect};

/// How long the system tries to deliver the end of a session that was not used.
const LINGER: Duration = Duration::from_secs(10);

/// A connection on which a file is requested.
#[derive(Debug)]
pub(crate) struct Control {
    server: ServerAddress,
    stream: TcpStream,
    /// The address that was reached.
    pub(crate) peer: SocketAddr,
    /// Whether the server has other addresses, so that it need not be this one.
    pub(crate) has_others: bool,
    /// How long connecting took.
    pub(crate) rtt: Duration,
}

/// Whether the connection is to become a stream of the session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AskUpgrade {
    Yes,
    No,
}

/// The answer, in the protocol that the server has chosen.
#[derive(Debug)]
pub(crate) enum ServerAnswer {
    V1(LegacyOffer),
    V2 {
        offer: SessionOffer,
        /// The connection as stream 0, if it became that.
        stream: Option<UpgradedStream>,
    },
}

/// The connection of the request as stream 0, and what was read of it after the offer.
#[derive(Debug)]
pub(crate) struct UpgradedStream {
    pub(crate) connection: Connection,
    pub(crate) early: Vec<u8>,
    pub(crate) rtt: Duration,
}

impl UpgradedStream {
    /// Ends the session without using it.
    pub(crate) fn end_session(self, notice: EndNotice) {
        // The server forgets an unused session by itself, only later.
        if self.connection.try_write(&Request::from(notice).encode()).is_ok() {
            let _ = self.connection.finish(LINGER);
        }
    }
}

impl Control {
    /// Connects to `server`, at an address that is not in `avoid`.
    pub(crate) async fn open(
        server: &ServerAddress,
        limit: Duration,
        avoid: &[SocketAddr],
    ) -> Result<Self, Failure> {
        let begun = Instant::now();
        let connected = connect(server.host(), server.port(), &server.to_string(), limit, avoid).await?;
        let Connected { stream, peer, has_others } = connected;
        let rtt = begun.elapsed();
        let unreachable = |source| Failure::Unreachable { server: server.to_string(), source };
        // Until the answer is there, giving up is a reset: a mere end would look like a client that has finished its
        // request and waits, and the server would hash a big file for nobody.
        stream.set_zero_linger().map_err(unreachable)?;
        Ok(Self { server: server.clone(), stream, peer, has_others, rtt })
    }

    /// Requests the file `name` with a `body`, and waits for the answer, at most until `limit` has passed.
    ///
    /// A server of protocol 1 reads and hashes the complete file before it answers, so the limit must be generous.
    ///
    /// # Errors
    /// Among others [`io::ErrorKind::InvalidData`] as [`Failure::ConnectionLost`] for an offer that was damaged on its
    /// way: another request may succeed.
    pub(crate) async fn request(
        self,
        name: &OsStr,
        body: &str,
        upgrade: AskUpgrade,
        limit: Duration,
    ) -> Result<ServerAnswer, Failure> {
        let server = self.server.clone();
        let is_not_understood =
            |answer: &Result<_, Failure>| answer.as_ref().is_err_and(answer::is_not_understood);
        let mut answer = self.exchange(name, body, upgrade, limit).await;
        // Proxies such as nginx insist on a target that begins with a slash. Without one it is the name as protocol 1 has it, and
        // to a server of protocol 2 both are the same file.
        if is_not_understood(&answer) && !name.as_bytes().starts_with(b"/") {
            let name = OsString::from_vec([b"/", name.as_bytes()].concat());
            let control = Self::open(&server, limit, &[]).await?;
            answer = control.exchange(&name, body, upgrade, limit).await;
        }
        if is_not_understood(&answer) { Err(answer::refused_twice(&server.to_string())) } else { answer }
    }

    /// Requests that the server receives the file `name`, which `body` describes, on this connection and others; waits for the answer,
    /// at most until `limit` has passed.
    pub(crate) async fn upload(
        mut self,
        name: &OsStr,
        body: &str,
        limit: Duration,
    ) -> Result<UpgradedStream, Failure> {
        let received = self.answer("PUT", name, body, AskUpgrade::Yes, limit).await?;
        let early = answer::parse_upload(&self.server.to_string(), name, &received)?;
        let connection = Connection::tcp(Arc::new(self.stream));
        Ok(UpgradedStream { connection, early, rtt: self.rtt })
    }

    async fn exchange(
        mut self,
        name: &OsStr,
        body: &str,
        upgrade: AskUpgrade,
        limit: Duration,
    ) -> Result<ServerAnswer, Failure> {
        let deadline = Instant::now() + limit;
        let received = self.answer("POST", name, body, upgrade, limit).await?;
        match answer::parse(&self.server.to_string(), self.peer, name, &received)? {
            Parsed::V1(offer) => {
                self.end_orderly();
                Ok(ServerAnswer::V1(offer))
            }
            Parsed::V2(offer) => {
                self.end_orderly();
                Ok(ServerAnswer::V2 { offer, stream: None })
            }
            Parsed::Switched(early) => {
                let late = self.late(limit);
                timeout_at(deadline, self.offer(early)).await.map_err(|_| late)?
            }
        }
    }

    fn late(&self, waited: Duration) -> Failure {
        Failure::TimedOut { server: self.server.to_string(), awaited: Awaited::Response, waited }
    }

    /// Sends a request and reads the answer to it.
    async fn answer(
        &mut self,
        method: &str,
        name: &OsStr,
        body: &str,
        upgrade: AskUpgrade,
        limit: Duration,
    ) -> Result<Vec<u8>, Failure> {
        let late = self.late(limit);
        let exchange = async {
            // A server may refuse before it has read everything; then the answer counts, not the failed write.
            let written = self.write(method, name, body, upgrade).await;
            let received = self.read().await;
            match received {
                Ok(received) if !received.is_empty() => Ok(received),
                received => written.and(received).map_err(|error| self.lost(Some(error))),
            }
        };
        let received = timeout(limit, exchange).await.map_err(|_| late)??;
        if received.is_empty() { Err(self.lost(None)) } else { Ok(received) }
    }

    async fn write(&mut self, method: &str, name: &OsStr, body: &str, upgrade: AskUpgrade) -> io::Result<()> {
        let target = Target::of(name.as_bytes());
        let marked = target.marking().value().map(|value| format!("{TARGET_HEADER}: {value}\r\n"));
        let connection = match upgrade {
            AskUpgrade::Yes => format!("Connection: Upgrade\r\nUpgrade: {UPGRADE}\r\n"),
            AskUpgrade::No => "Connection: close\r\n".to_owned(),
        };
        let message = format!(
            "{method} {} HTTP/1.1\r\nHost: {}\r\nAccept-Encoding: identity\r\n{connection}{}Content-Length: {}\r\n\r\n{body}",
            target.text(),
            self.server,
            marked.unwrap_or_default(),
            body.len(),
        );
        self.stream.write_all(message.as_bytes()).await
    }

    /// Reads until the answer is complete by its length, by being valid, or by the connection's end.
    async fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut received = Vec::with_capacity(1 << 10);
        loop {
            if received.len() > answer::MAX_HEAD + v1::MAX_BODY || answer::is_complete(&received) {
                return Ok(received);
            }
            match self.stream.read_buf(&mut received).await {
                Ok(0) => return Ok(received),
                Ok(_) => {}
                // A server that closes without having read every byte resets; what arrived before is the answer.
                Err(_) if !received.is_empty() => return Ok(received),
                Err(error) => return Err(error),
            }
        }
    }

    /// From now on an end is an end.
    fn end_orderly(&self) {
        let _ = socket2::SockRef::from(&self.stream).set_linger(None);
    }

    /// Reads the offer, the first frame after the switch of protocols.
    async fn offer(mut self, early: Vec<u8>) -> Result<ServerAnswer, Failure> {
        let mut received = early;
        self.fill(&mut received, FRAME_LEN).await?;
        let damaged = |control: &Self| {
            control.lost(Some(io::Error::new(io::ErrorKind::InvalidData, "its offer was damaged on the way")))
        };
        let header: [u8; FRAME_LEN] = received.first_chunk().copied().ok_or_else(|| damaged(&self))?;
        let (len, refusal) = match Response::decode(&header) {
            Ok(Response::Offer(len)) => (len, None),
            Ok(Response::Refused(code, len)) => (len, Some(code)),
            Ok(Response::Drain) => {
                return Err(self.lost(Some(io::Error::other("the server is shutting down"))));
            }
            Ok(Response::Data(_) | Response::Proof(_) | Response::Digests(_) | Response::Wait { .. })
            | Err(_) => {
                return Err(damaged(&self));
            }
        };
        let end = FRAME_LEN + len + PAYLOAD_CHECK_LEN;
        self.fill(&mut received, end).await?;
        let early = received.split_off(end);
        let payload = received.get(FRAME_LEN..).unwrap_or_default();
        let payload = checked_payload(&header, payload).map_err(|_| damaged(&self))?;
        if refusal.is_some() {
            let (server, reason) = (self.server.to_string(), reason_of(payload));
            return Err(Failure::Refused { server, status: 503, reason, retry_after: None });
        }
        let offer = SessionOffer::decode(payload).map_err(|error| Failure::Protocol {
            server: self.server.to_string(),
            what: error.to_string(),
        })?;
        let connection = Connection::tcp(Arc::new(self.stream));
        let stream = UpgradedStream { connection, early, rtt: self.rtt };
        Ok(ServerAnswer::V2 { offer, stream: Some(stream) })
    }

    /// Reads until there are `n` bytes at least.
    async fn fill(&mut self, received: &mut Vec<u8>, n: usize) -> Result<(), Failure> {
        while received.len() < n {
            match self.stream.read_buf(received).await {
                Ok(0) => return Err(self.lost(None)),
                Ok(_) => {}
                Err(error) => return Err(self.lost(Some(error))),
            }
        }
        Ok(())
    }

    fn lost(&self, source: Option<io::Error>) -> Failure {
        Failure::ConnectionLost { server: self.server.to_string(), stream: None, received: 0, source }
    }
}
