//! The conversation on one connection: demands go out as the scheduler has them, and their answers come in.

use std::io;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::client::dialled_source::Way;
use crate::client::options::Verification;
use crate::error::TransferError;
use crate::manifest::{BlockId, StreamId};
use crate::proto::v2::{
    BrokenProtocol, Coming, Demand, ErrorCode, FRAME_LEN, Hello, Requester, TRAILER_LEN, Trailer,
    WHOLE_DIGESTS_LEN, WholeDigests, WholeDigestsReply, reason_of,
};
use crate::receive::frame_reader::{FrameReader, ReadInterrupt};
use crate::receive::shared::{Shared, Turn};
use crate::receive::wake::{Line, Woken};
use crate::schedule::Fault;
use crate::sink::{BlockLease, FinishError};

/// How often a way may be tried that brings nothing, within the time after which the user gives up.
const TRIES: u32 = 3;

/// How a connection's conversation ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The transfer is over.
    Over,
    /// The transfer cannot succeed.
    Failed(TransferError),
    /// The server closed the connection when nothing was asked for.
    Idle,
    /// The scheduler wants another connection in its place.
    Replaced(Fault),
    /// The server does not know the session.
    NoSuchSession(Lost),
    /// The connection ended early.
    Lost(Lost),
    /// The connection ended before one frame had come on it: it may not have led to the server at all.
    Unheard(Unheard),
}

/// How a connection ended on which no frame had come.
#[derive(Debug)]
pub(crate) enum Unheard {
    /// As [`End::Lost`].
    Lost(Lost),
    /// As [`End::Replaced`].
    Replaced(Fault),
    /// As [`End::Failed`].
    Failed(TransferError),
}

/// How a connection ended early.
#[derive(Debug)]
pub(crate) struct Lost {
    /// What the system said, or the server.
    pub(crate) reason: io::Error,
    /// How many bytes of the file had come on it.
    pub(crate) received: u64,
}

/// One connection's conversation.
pub(crate) struct StreamDriver<'a> {
    shared: &'a Shared,
    stream: StreamId,
    line: &'a Line,
    reader: FrameReader,
    requester: Requester,
    /// What is to be sent next.
    demands: Vec<u8>,
    /// How many bytes of the file have come.
    received: u64,
    /// The way of the connection, as long as no frame has come on it.
    unheard: Option<Way>,
    /// Until when the first one is waited for, where it is doubtful whether it will ever come.
    first_until: Option<Instant>,
}

/// Where the bytes of an answer go.
enum Target {
    Place(BlockLease),
    /// So many bytes are still to come, and nobody wants them.
    Nowhere(u64),
}

impl<'a> StreamDriver<'a> {
    pub(crate) fn new(
        shared: &'a Shared,
        stream: StreamId,
        line: &'a Line,
        reader: FrameReader,
        way: Way,
    ) -> Self {
        let (requester, unheard) = (Requester::new(shared.manifest), Some(way));
        let (demands, received, first_until) = (Vec::new(), 0, None);
        Self { shared, stream, line, reader, requester, demands, received, unheard, first_until }
    }

    /// Converses until the connection or the transfer ends.
    ///
    /// # Cancel safety
    /// What was received of a block and not stored is lost with the connection.
    pub(crate) async fn run(mut self, hello: &Hello, rtt: Duration) -> End {
        self.demands.extend_from_slice(&hello.encode());
        self.shared.opened(self.stream, rtt);
        let end = self.converse().await;
        if matches!(end, End::Over) && self.shared.is_accepted() {
            self.demands.extend_from_slice(&Demand::End.encode());
            // All is well, whatever becomes of these last bytes.
            let _ = self.reader.send(&self.demands, self.line).await;
        }
        self.shared.hung_up();
        if self.unheard.is_some() { end.unheard() } else { end }
    }

    async fn converse(&mut self) -> End {
        loop {
            match self.shared.turn(self.stream, &mut self.requester, &mut self.demands) {
                Turn::Over => return End::Over,
                Turn::Go => {}
            }
            if let Err(end) = self.exchange().await {
                return end;
            }
        }
    }

    /// Sends the demands, and takes in one answer, unless there is something to do before one comes.
    async fn exchange(&mut self) -> Result<(), End> {
        let sent = self.reader.send(&self.demands, self.line).await;
        self.demands.clear();
        sent.map_err(|interrupt| self.end(interrupt))?;
        // Waits for something to ask for as well as for an answer.
        let limit = self.limit();
        let header = self.reader.ensure(FRAME_LEN, self.line);
        let ensured = match limit {
            Some(limit) => timeout_at(limit, header).await,
            None => Ok(header.await),
        };
        match ensured {
            Ok(Ok(())) => self.answer().await,
            Ok(Err(ReadInterrupt::Woken(Woken::Look))) => Ok(()),
            Ok(Err(interrupt)) => Err(self.end(interrupt)),
            // Another stream was answered meanwhile, so that this one has only to wait for its turn.
            Err(_) if self.limit().is_none() => Ok(()),
            Err(_) => Err(End::Replaced(Fault::Stalled)),
        }
    }

    /// Until when the first frame is waited for: as long as for a connection, but not until the user gives up.
    fn limit(&mut self) -> Option<Instant> {
        let way = self.unheard?;
        if self.requester.n_unanswered() == 0 || !self.shared.access.is_doubtful(way) {
            return None;
        }
        let options = &self.shared.options;
        let patience = options.connect_timeout.min(options.stall_timeout / TRIES);
        Some(*self.first_until.get_or_insert_with(|| Instant::now() + patience))
    }

    /// Takes in one answer, of which the header is ahead.
    async fn answer(&mut self) -> Result<(), End> {
        let header = self.reader.take();
        let coming = self.requester.header(&header);
        match coming {
            Err(BrokenProtocol::NoFrame) => {}
            // Another server would say that too.
            Err(BrokenProtocol::NotAsked) | Ok(Coming::Drain | Coming::Refused(..)) => self.unheard = None,
            Ok(Coming::Block(_) | Coming::Digests(_) | Coming::Wait { .. }) => {
                if let Some(way) = self.unheard.take() {
                    self.shared.access.got_through(way);
                }
            }
        }
        match coming.map_err(|error| self.broken(error))? {
            Coming::Block(block) => self.block(block).await,
            Coming::Digests(which) => self.digests(which).await,
            Coming::Wait { hashed } => {
                self.shared.hashes(hashed);
                Ok(())
            }
            Coming::Drain => Err(End::Lost(self.lost(io::Error::other("the server is shutting down")))),
            Coming::Refused(code, len) => Err(self.refused(code, len).await),
        }
    }

    async fn block(&mut self, block: BlockId) -> Result<(), End> {
        let mut target = self.target(block);
        let len = self.shared.manifest.range(block).len();
        let result = self.bytes(block, &mut target).await;
        if result.is_err() {
            self.shared.wasted(len - target.remaining());
            return result;
        }
        let trailer = match self.take_behind_data::<TRAILER_LEN>().await {
            Ok(trailer) => Trailer::decode(&trailer).map_err(|_| self.broken(BrokenProtocol::NoFrame)),
            Err(end) => Err(end),
        };
        self.requester.answered();
        let digest = match trailer {
            Ok(Trailer(Ok(digest))) => digest,
            Ok(Trailer(Err(code))) => return Err(End::Failed(self.explain(code, String::new()))),
            Err(end) => {
                self.shared.wasted(len);
                return Err(end);
            }
        };
        let leased = match target {
            Target::Place(leased) => leased,
            Target::Nowhere(_) => {
                self.shared.wasted(len);
                self.shared.skipped(self.stream, block);
                return Ok(());
            }
        };
        let finished = match self.shared.options.verification {
            Verification::On => leased.finish(),
            Verification::Off => leased.finish_unhashed(),
        };
        let received = match finished {
            Ok(received) => received,
            Err(FinishError::Store(error)) => return Err(self.failed("write", error)),
            Err(FinishError::Incomplete) => {
                return self.shared.corrupt(self.stream, block).map_err(End::Failed);
            }
        };
        let Ok(verified) = received.verify(digest) else {
            return self.shared.corrupt(self.stream, block).map_err(End::Failed);
        };
        self.shared.store(self.stream, verified).await.map_err(End::Failed)?;
        // The others on this thread have waited for a block's time.
        tokio::task::yield_now().await;
        Ok(())
    }

    /// Where `block` is received: in its place, beside the file while somebody else has the place, or nowhere.
    fn target(&self, block: BlockId) -> Target {
        if !self.shared.is_wanted(block) {
            return Target::Nowhere(self.shared.manifest.range(block).len());
        }
        let blocks = &self.shared.blocks;
        match blocks.lease(block).or_else(|| blocks.lease_scratch(block)) {
            Some(leased) => Target::Place(leased),
            None => Target::Nowhere(self.shared.manifest.range(block).len()),
        }
    }

    /// Receives all bytes of `block`, as long as somebody wants them; the rest goes nowhere.
    async fn bytes(&mut self, block: BlockId, target: &mut Target) -> Result<(), End> {
        while target.remaining() > 0 {
            let allowed = self.shared.allowance().await;
            let received = match target {
                Target::Place(leased) => self.reader.receive(leased, allowed, self.line).await,
                Target::Nowhere(rest) => self.reader.discard(*rest, allowed, self.line).await,
            };
            self.shared.give_back(allowed, *received.as_ref().unwrap_or(&0));
            match received {
                Ok(n) => {
                    self.received = self.received.saturating_add(u64::try_from(n).unwrap_or(u64::MAX));
                    if let Target::Nowhere(rest) = target {
                        *rest = rest.saturating_sub(u64::try_from(n).unwrap_or(u64::MAX));
                    }
                    self.shared.progressed(self.stream, n);
                }
                Err(ReadInterrupt::Woken(Woken::Look)) => {
                    self.look()?;
                    if matches!(target, Target::Place(_)) && !self.shared.is_wanted(block) {
                        let rest = target.remaining();
                        *target = Target::Nowhere(rest);
                    }
                }
                Err(interrupt) => return Err(self.end(interrupt)),
            }
        }
        Ok(())
    }

    /// Looks up in the middle of an answer, which is not waited for when the transfer is over.
    fn look(&self) -> Result<(), End> {
        if self.shared.is_accepted() { Err(End::Over) } else { Ok(()) }
    }

    async fn digests(&mut self, which: WholeDigests) -> Result<(), End> {
        let bytes = self.take_behind_data::<WHOLE_DIGESTS_LEN>().await?;
        self.requester.answered();
        let digests = WholeDigestsReply::decode(which, &bytes);
        self.shared.whole(digests.map_err(|_| self.broken(BrokenProtocol::NoFrame))?);
        Ok(())
    }

    /// Waits for `N` bytes that must come now, whatever else is to be done, and takes them.
    async fn take_behind_data<const N: usize>(&mut self) -> Result<[u8; N], End> {
        loop {
            match self.reader.ensure(N, self.line).await {
                Ok(()) => return Ok(self.reader.take()),
                Err(ReadInterrupt::Woken(Woken::Look)) => self.look()?,
                Err(interrupt) => return Err(self.end(interrupt)),
            }
        }
    }

    async fn refused(&mut self, code: ErrorCode, len: usize) -> End {
        let mut reason = Vec::new();
        while reason.len() < len {
            match self.take_behind_data::<1>().await {
                Ok([byte]) => reason.push(byte),
                Err(_) => break,
            }
        }
        let reason = reason_of(&reason);
        match code {
            ErrorCode::NoSuchSession => {
                let reason = "the server does not know the session any more";
                End::NoSuchSession(self.lost(io::Error::other(reason)))
            }
            ErrorCode::NoSuchStream | ErrorCode::Busy => {
                End::Lost(self.lost(io::Error::other(format!("the server refused it: {reason}"))))
            }
            ErrorCode::SourceChanged | ErrorCode::SourceUnreadable | ErrorCode::BrokenProtocol => {
                End::Failed(self.explain(code, reason))
            }
        }
    }

    /// The error that a code of the server's is for the transfer.
    fn explain(&self, code: ErrorCode, reason: String) -> TransferError {
        let (server, name) = (self.shared.server(), self.shared.name());
        match code {
            ErrorCode::SourceChanged => TransferError::SourceChanged { server, name },
            ErrorCode::SourceUnreadable => TransferError::Unreadable { server, name, reason },
            ErrorCode::BrokenProtocol => {
                TransferError::Protocol { server, what: format!("it says that this client does: {reason}") }
            }
            ErrorCode::NoSuchSession | ErrorCode::NoSuchStream | ErrorCode::Busy => {
                TransferError::Refused { server, status: 503, reason }
            }
        }
    }

    fn broken(&self, error: BrokenProtocol) -> End {
        End::Failed(TransferError::Protocol { server: self.shared.server(), what: error.to_string() })
    }

    fn failed(&self, action: &'static str, error: io::Error) -> End {
        End::Failed(self.shared.local(action, error))
    }

    fn end(&self, interrupt: ReadInterrupt) -> End {
        match interrupt {
            ReadInterrupt::Woken(Woken::Replace(fault)) => End::Replaced(fault),
            ReadInterrupt::Woken(Woken::Look) => End::Lost(self.lost(io::Error::other("it was interrupted"))),
            ReadInterrupt::Ended if self.requester.n_unanswered() == 0 => End::Idle,
            ReadInterrupt::Ended => {
                let closed = io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed it");
                End::Lost(self.lost(closed))
            }
            ReadInterrupt::Broken(error) => End::Lost(self.lost(error)),
            ReadInterrupt::Store(error) => self.failed("write", error),
        }
    }

    fn lost(&self, reason: io::Error) -> Lost {
        Lost { reason, received: self.received }
    }
}

impl End {
    /// The same, of a connection on which no frame had come.
    fn unheard(self) -> Self {
        match self {
            Self::Lost(lost) => Self::Unheard(Unheard::Lost(lost)),
            Self::Replaced(fault) => Self::Unheard(Unheard::Replaced(fault)),
            Self::Failed(error) => Self::Unheard(Unheard::Failed(error)),
            Self::Over | Self::Idle | Self::NoSuchSession(_) | Self::Unheard(_) => self,
        }
    }
}

impl Target {
    fn remaining(&self) -> u64 {
        match self {
            Self::Place(leased) => leased.remaining(),
            Self::Nowhere(rest) => *rest,
        }
    }
}
