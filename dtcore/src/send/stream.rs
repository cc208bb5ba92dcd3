//! One stream of a session: its receiver's demands, answered in their order.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use socket2::SockRef;
use tokio::time::{Instant, interval_at, timeout};

use crate::manifest::ByteRange;
use crate::proto::v2::{ErrorCode, FRAME_LEN, Reply, Responder, Step, TRAILER_LEN, Trailer, WholeDigests};
use crate::send::digest_cache::DigestError;
use crate::send::handshake::{LINGER_BYTES, LINGER_TIMEOUT, refuse};
use crate::send::range::RangeSender;
use crate::send::session::{Session, SessionEnd, StreamGuard};
use crate::send::write::{Follows, write_all};
use crate::server::event::{ServerEvent, StreamFailure};
use crate::transport::{TcpConnection, drain_until_closed};

/// How often a receiver that waits for digests is told that they are still being computed.
const WAIT_EVERY: Duration = Duration::from_secs(1);

/// How many demands are read at once.
const READ: usize = 16 * FRAME_LEN;

/// How much the system takes ahead of what the network does, so that what is taken over or given up is little. Over
/// loopback 256 KiB, 1 MiB and no limit measured alike: 2.2 to 3.0 GB/s hashing, 2.7 to 4.9 with known digests.
const UNSENT: u32 = 256 << 10;

/// How a stream comes to its end between two frames.
enum Ended {
    /// The receiver has closed, or asked for nothing for too long.
    Closed,
    /// The receiver has ended the session.
    Finished,
    Drained,
    Refused(ErrorCode, String),
}

/// Carries a stream on its connection, on which `early` was read before, to its end.
pub(crate) async fn serve(claim: StreamGuard, socket: TcpConnection, early: Bytes, peer: SocketAddr) {
    let session = Arc::clone(claim.session());
    let (transfer, id) = (session.transfer(), claim.stream());
    // It counts as long as it is open; what was replaced has no place of its own any more.
    let connected = claim.connected();
    session.shared().emit(ServerEvent::StreamOpened { transfer, stream: id, peer });
    let _ = socket.set_nodelay(true);
    // Only advice: without it more is in the system's hands.
    let _ = SockRef::from(&*socket).set_tcp_notsent_lowat(UNSENT);
    let mut stream = Stream {
        session: Arc::clone(&session),
        ranges: RangeSender::new(Arc::clone(&session)),
        responder: Responder::new(session.manifest().size()),
        socket,
        early,
        trailer: None,
        bytes: 0,
        is_mid_frame: false,
    };
    let outcome = tokio::select! {
        biased;
        () = claim.stop().cancelled() => Err(StreamFailure::Aborted),
        outcome = stream.converse() => outcome,
    };
    let failure = match &outcome {
        Ok(Ended::Closed | Ended::Finished | Ended::Drained) => None,
        Ok(Ended::Refused(ErrorCode::SourceChanged, _)) => Some(StreamFailure::SourceChanged),
        Ok(Ended::Refused(ErrorCode::SourceUnreadable, _)) => Some(StreamFailure::SourceUnreadable),
        Ok(Ended::Refused(..)) => Some(StreamFailure::BrokenProtocol),
        Err(StreamFailure::Aborted) if claim.is_replaced() => Some(StreamFailure::Replaced),
        Err(StreamFailure::Aborted) if claim.is_finished() && !stream.is_mid_frame => None,
        Err(failure) => Some(*failure),
    };
    let bytes = stream.bytes;
    session.shared().emit(match failure {
        None => ServerEvent::StreamFinished { transfer, stream: id, bytes },
        Some(reason) => ServerEvent::StreamFailed { transfer, stream: id, bytes, reason },
    });
    // Before the stream is free: a server that drains waits for nothing else, and would take it for a failure.
    if matches!(outcome, Ok(Ended::Finished)) {
        session.end(SessionEnd::Finished);
    }
    drop(claim);
    if failure == Some(StreamFailure::Replaced) {
        stream.close_at_once();
    } else {
        stream.close(outcome).await;
    }
    drop(connected);
}

/// A stream's connection, and where it is in its conversation.
#[derive(Debug)]
struct Stream {
    session: Arc<Session>,
    ranges: RangeSender,
    responder: Responder,
    socket: TcpConnection,
    /// What was read together with the hello.
    early: Bytes,
    /// That of the range sent last: it is written together with what comes next.
    trailer: Option<Trailer>,
    /// How many bytes of ranges were sent.
    bytes: u64,
    /// Whether a frame has been begun and not ended: then the connection can only be reset.
    is_mid_frame: bool,
}

impl Stream {
    /// Answers demands until the stream ends.
    async fn converse(&mut self) -> Result<Ended, StreamFailure> {
        loop {
            if self.responder.is_empty() {
                // What has come meanwhile; mostly the next demand, so that its header goes with the trailer.
                let _ = self.read_now()?;
            }
            if self.is_draining() {
                return self.drain().await;
            }
            match self.responder.next() {
                Some(Step::Send(range)) => self.send(range).await?,
                Some(Step::Digests(which)) => {
                    if let Some(ended) = self.send_digests(which).await? {
                        return Ok(ended);
                    }
                }
                Some(Step::End) => {
                    self.flush().await?;
                    return Ok(Ended::Finished);
                }
                Some(Step::Refuse(reason)) => {
                    self.flush().await?;
                    return Ok(Ended::Refused(ErrorCode::BrokenProtocol, reason.to_owned()));
                }
                None => {
                    self.flush().await?;
                    if let Some(ended) = self.wait().await? {
                        return Ok(ended);
                    }
                }
            }
        }
    }

    /// Sends a range and keeps its trailer for the next write.
    async fn send(&mut self, range: ByteRange) -> Result<(), StreamFailure> {
        let mut head = [0; TRAILER_LEN + FRAME_LEN];
        let trailer = self.trailer.take().map(Trailer::encode);
        let parts = trailer.iter().flatten().copied().chain(Reply::Data(range).encode());
        let len = trailer.map_or(0, |trailer| trailer.len()) + FRAME_LEN;
        head.iter_mut().zip(parts).for_each(|(to, from)| *to = from);
        self.is_mid_frame = true;
        let head = head.get(..len).unwrap_or_default();
        write_all(&self.socket, head, Follows::More, self.session.options().stall_timeout).await?;
        let upcoming = self.responder.upcoming();
        self.trailer = Some(self.ranges.send(&self.socket, range, upcoming).await?);
        self.bytes = self.bytes.saturating_add(range.len());
        Ok(())
    }

    /// Writes the trailer that waits, if one does.
    async fn flush(&mut self) -> Result<(), StreamFailure> {
        if let Some(trailer) = self.trailer.take() {
            self.write(&trailer.encode()).await?;
        }
        Ok(())
    }

    /// Writes the rest of a frame.
    async fn write(&mut self, bytes: &[u8]) -> Result<(), StreamFailure> {
        self.is_mid_frame = true;
        write_all(&self.socket, bytes, Follows::Nothing, self.session.options().stall_timeout).await?;
        self.is_mid_frame = false;
        Ok(())
    }

    /// Waits for demands; says so if the stream ends instead.
    async fn wait(&mut self) -> Result<Option<Ended>, StreamFailure> {
        let idle = self.session.options().idle_timeout;
        let waiting = timeout(idle, self.socket.readable());
        tokio::select! {
            biased;
            () = self.session.shared().draining.cancelled() => return Ok(None),
            readable = waiting => match readable {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(StreamFailure::Disconnected),
                Err(_) => return Ok(Some(Ended::Closed)),
            },
        }
        match self.read_now()? {
            Read::End if self.responder.is_at_boundary() => Ok(Some(Ended::Closed)),
            Read::End => Err(StreamFailure::Disconnected),
            Read::Some | Read::Nothing => Ok(None),
        }
    }

    /// Reads what is there, without waiting.
    fn read_now(&mut self) -> Result<Read, StreamFailure> {
        if self.early.has_remaining() {
            let n = self.responder.take(&self.early);
            self.early.advance(n);
            return Ok(Read::Some);
        }
        let mut buffer = [0; READ];
        let room = self.responder.room().min(READ);
        match self.socket.try_read(buffer.get_mut(..room).unwrap_or_default()) {
            // Where there was room, it is the end.
            Ok(0) => Ok(if room > 0 { Read::End } else { Read::Nothing }),
            Ok(n) => {
                self.responder.take(buffer.get(..n).unwrap_or_default());
                Ok(Read::Some)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Read::Nothing),
            Err(_) => Err(StreamFailure::Disconnected),
        }
    }

    /// Sends the file's digests when they are there; says so if the stream ends instead.
    async fn send_digests(&mut self, which: WholeDigests) -> Result<Option<Ended>, StreamFailure> {
        self.flush().await?;
        let session = Arc::clone(&self.session);
        let computing = session.whole_digests(which);
        tokio::pin!(computing);
        let mut ticks = interval_at(Instant::now() + WAIT_EVERY, WAIT_EVERY);
        let digests = loop {
            tokio::select! {
                biased;
                () = session.shared().draining.cancelled() => return self.drain().await.map(Some),
                digests = &mut computing => break digests,
                _ = ticks.tick() => {
                    let hashed = session.shared().digests.progress(&session.source().identity());
                    self.write(&Reply::Wait { hashed }.encode()).await?;
                }
            }
        };
        let code = match &digests {
            Ok(digests) => {
                self.write(&digests.encode()).await?;
                return Ok(None);
            }
            Err(DigestError::Changed) => ErrorCode::SourceChanged,
            Err(DigestError::Unreadable | DigestError::Failed) => ErrorCode::SourceUnreadable,
            Err(DigestError::Shortage | DigestError::Cancelled) => ErrorCode::Busy,
        };
        let reason = digests.map_or_else(|error| error.to_string(), |_| String::new());
        Ok(Some(Ended::Refused(code, reason)))
    }

    fn is_draining(&self) -> bool {
        self.session.shared().draining.is_cancelled()
    }

    async fn drain(&mut self) -> Result<Ended, StreamFailure> {
        self.flush().await?;
        self.write(&Reply::Drain.encode()).await?;
        Ok(Ended::Drained)
    }

    /// Ends the connection of a stream that was replaced, as [`close`](Self::close) does, without waiting for the receiver.
    fn close_at_once(self) {
        if !self.is_mid_frame {
            // It is dropped in any case.
            let _ = self.socket.end(self.session.options().stall_timeout);
        }
    }

    /// Ends the connection: in order between two frames, else by a reset.
    async fn close(self, outcome: Result<Ended, StreamFailure>) {
        let shared = self.session.shared();
        match outcome {
            Ok(Ended::Refused(code, reason)) => {
                return refuse(shared, &self.socket, code, &reason).await;
            }
            Ok(Ended::Closed | Ended::Finished | Ended::Drained) => {}
            Err(StreamFailure::Aborted) if !self.is_mid_frame => {}
            Err(_) => return,
        }
        if self.socket.end(self.session.options().stall_timeout).is_ok() {
            tokio::select! {
                biased;
                () = shared.aborted.cancelled() => {}
                _ = drain_until_closed(&self.socket, LINGER_TIMEOUT, LINGER_BYTES) => {}
            }
        }
    }
}

/// What came of looking for demands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Read {
    Some,
    Nothing,
    /// The receiver sends no more.
    End,
}
