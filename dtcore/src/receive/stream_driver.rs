//! The conversation on one connection: demands go out as the scheduler has them, and their answers come in.

use std::io;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::client::dialled_source::Way;
use crate::client::options::Verification;
use crate::error::TransferError;
use crate::manifest::{BlockIndex, StreamId};
use crate::proto::v2::{
    BrokenProtocol, Coming, Demand, FRAME_LEN, Greeting, Problem, Receiving, TRAILER_LEN, Trailer,
    WHOLE_DIGESTS_LEN, WholeDigests, WholeDigestsReply, reason_of,
};
use crate::receive::frame_reader::{Halt, Inlet};
use crate::receive::shared::{Shared, Turn};
use crate::receive::wake::{Line, Poked};
use crate::schedule::Fault;
use crate::sink::{Leased, Unverified};

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
pub(crate) struct Conversation<'a> {
    shared: &'a Shared,
    stream: StreamId,
    line: &'a Line,
    inlet: Inlet,
    receiving: Receiving,
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
    Place(Leased),
    /// So many bytes are still to come, and nobody wants them.
    Nowhere(u64),
}

impl<'a> Conversation<'a> {
    pub(crate) fn new(shared: &'a Shared, stream: StreamId, line: &'a Line, inlet: Inlet, way: Way) -> Self {
        let (receiving, unheard) = (Receiving::new(shared.plan), Some(way));
        let (demands, received, first_until) = (Vec::new(), 0, None);
        Self { shared, stream, line, inlet, receiving, demands, received, unheard, first_until }
    }

    /// Converses until the connection or the transfer ends.
    ///
    /// # Cancel safety
    /// What was received of a block and not stored is lost with the connection.
    pub(crate) async fn run(mut self, greeting: &Greeting, rtt: Duration) -> End {
        self.demands.extend_from_slice(&greeting.encode());
        self.shared.opened(self.stream, rtt);
        let end = self.converse().await;
        if matches!(end, End::Over) && self.shared.is_accepted() {
            self.demands.extend_from_slice(&Demand::End.encode());
            // All is well, whatever becomes of these last bytes.
            let _ = self.inlet.send(&self.demands, self.line).await;
        }
        self.shared.hung_up();
        if self.unheard.is_some() { end.unheard() } else { end }
    }

    async fn converse(&mut self) -> End {
        loop {
            match self.shared.turn(self.stream, &mut self.receiving, &mut self.demands) {
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
        let sent = self.inlet.send(&self.demands, self.line).await;
        self.demands.clear();
        sent.map_err(|halt| self.end(halt))?;
        // Waits for something to ask for as well as for an answer.
        let limit = self.limit();
        let header = self.inlet.ensure(FRAME_LEN, self.line);
        let ensured = match limit {
            Some(limit) => timeout_at(limit, header).await,
            None => Ok(header.await),
        };
        match ensured {
            Ok(Ok(())) => self.answer().await,
            Ok(Err(Halt::Poked(Poked::Look))) => Ok(()),
            Ok(Err(halt)) => Err(self.end(halt)),
            // Another stream was answered meanwhile, so that this one has only to wait for its turn.
            Err(_) if self.limit().is_none() => Ok(()),
            Err(_) => Err(End::Replaced(Fault::Stalled)),
        }
    }

    /// Until when the first frame is waited for: as long as for a connection, but not until the user gives up.
    fn limit(&mut self) -> Option<Instant> {
        let way = self.unheard?;
        if self.receiving.n_unanswered() == 0 || !self.shared.access.is_doubtful(way) {
            return None;
        }
        let options = &self.shared.options;
        let patience = options.connect_timeout.min(options.stall_timeout / TRIES);
        Some(*self.first_until.get_or_insert_with(|| Instant::now() + patience))
    }

    /// Takes in one answer, of which the header is ahead.
    async fn answer(&mut self) -> Result<(), End> {
        let header = self.inlet.take();
        let coming = self.receiving.header(&header);
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
            Coming::Refused(problem, len) => Err(self.refused(problem, len).await),
        }
    }

    async fn block(&mut self, block: BlockIndex) -> Result<(), End> {
        let mut target = self.target(block);
        let len = self.shared.plan.range(block).len();
        let result = self.bytes(block, &mut target).await;
        if result.is_err() {
            self.shared.wasted(len - target.remaining());
            self.vacate(target);
            return result;
        }
        let trailer = match self.take_behind_data::<TRAILER_LEN>().await {
            Ok(trailer) => Trailer::decode(&trailer).map_err(|_| self.broken(BrokenProtocol::NoFrame)),
            Err(end) => Err(end),
        };
        self.receiving.answered();
        let digest = match trailer {
            Ok(Trailer(Ok(digest))) => digest,
            Ok(Trailer(Err(problem))) => {
                self.vacate(target);
                return Err(End::Failed(self.explain(problem, String::new())));
            }
            Err(end) => {
                self.shared.wasted(len);
                self.vacate(target);
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
        let proven = match self.shared.options.verification {
            Verification::On => leased.verify(digest),
            Verification::Off => leased.trust_unverified(digest),
        };
        let verified = match proven {
            Ok(verified) => verified,
            Err(Unverified::Mismatch(leased)) => {
                self.vacate(Target::Place(leased));
                return self.shared.corrupt(self.stream, block).map_err(End::Failed);
            }
            Err(Unverified::Store(error)) => return Err(self.failed("read back", error)),
        };
        self.shared.store(self.stream, verified).await.map_err(End::Failed)?;
        // The others on this thread have waited for a block's time.
        tokio::task::yield_now().await;
        Ok(())
    }

    /// Where `block` is received: in its place, beside the file while somebody else has the place, or nowhere.
    fn target(&self, block: BlockIndex) -> Target {
        if !self.shared.is_wanted(block) {
            return Target::Nowhere(self.shared.plan.range(block).len());
        }
        let blocks = &self.shared.blocks;
        match blocks.lease(block).or_else(|| blocks.spare(block)) {
            Some(leased) => Target::Place(leased),
            None => Target::Nowhere(self.shared.plan.range(block).len()),
        }
    }

    /// Receives all bytes of `block`, as long as somebody wants them; the rest goes nowhere.
    async fn bytes(&mut self, block: BlockIndex, target: &mut Target) -> Result<(), End> {
        while target.remaining() > 0 {
            let allowed = self.shared.allowance().await;
            let received = match target {
                Target::Place(leased) => self.inlet.receive(leased, allowed, self.line).await,
                Target::Nowhere(rest) => self.inlet.discard(*rest, allowed, self.line).await,
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
                Err(Halt::Poked(Poked::Look)) => {
                    self.look()?;
                    if matches!(target, Target::Place(_)) && !self.shared.is_wanted(block) {
                        let rest = target.remaining();
                        self.vacate(std::mem::replace(target, Target::Nowhere(rest)));
                    }
                }
                Err(halt) => return Err(self.end(halt)),
            }
        }
        Ok(())
    }

    /// Looks up in the middle of an answer, which is not waited for when the transfer is over.
    fn look(&self) -> Result<(), End> {
        if self.shared.is_accepted() { Err(End::Over) } else { Ok(()) }
    }

    /// Gives a place back that was not filled.
    fn vacate(&self, target: Target) {
        if let Target::Place(leased) = target {
            drop(leased);
            self.shared.released();
        }
    }

    async fn digests(&mut self, which: WholeDigests) -> Result<(), End> {
        let bytes = self.take_behind_data::<WHOLE_DIGESTS_LEN>().await?;
        self.receiving.answered();
        let digests = WholeDigestsReply::decode(which, &bytes);
        self.shared.whole(digests.map_err(|_| self.broken(BrokenProtocol::NoFrame))?);
        Ok(())
    }

    /// Waits for `N` bytes that must come now, whatever else is to be done, and takes them.
    async fn take_behind_data<const N: usize>(&mut self) -> Result<[u8; N], End> {
        loop {
            match self.inlet.ensure(N, self.line).await {
                Ok(()) => return Ok(self.inlet.take()),
                Err(Halt::Poked(Poked::Look)) => self.look()?,
                Err(halt) => return Err(self.end(halt)),
            }
        }
    }

    async fn refused(&mut self, problem: Problem, len: usize) -> End {
        let mut reason = Vec::new();
        while reason.len() < len {
            match self.take_behind_data::<1>().await {
                Ok([byte]) => reason.push(byte),
                Err(_) => break,
            }
        }
        let reason = reason_of(&reason);
        match problem {
            Problem::NoSuchSession => {
                let reason = "the server does not know the session any more";
                End::NoSuchSession(self.lost(io::Error::other(reason)))
            }
            Problem::NoSuchStream | Problem::Busy => {
                End::Lost(self.lost(io::Error::other(format!("the server refused it: {reason}"))))
            }
            Problem::SourceChanged | Problem::SourceUnreadable | Problem::BrokenProtocol => {
                End::Failed(self.explain(problem, reason))
            }
        }
    }

    /// The error that a problem of the server's is for the transfer.
    fn explain(&self, problem: Problem, reason: String) -> TransferError {
        let (server, name) = (self.shared.server(), self.shared.name());
        match problem {
            Problem::SourceChanged => TransferError::SourceChanged { server, name },
            Problem::SourceUnreadable => TransferError::Unreadable { server, name, reason },
            Problem::BrokenProtocol => {
                TransferError::Protocol { server, what: format!("it says that this client does: {reason}") }
            }
            Problem::NoSuchSession | Problem::NoSuchStream | Problem::Busy => {
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

    fn end(&self, halt: Halt) -> End {
        match halt {
            Halt::Poked(Poked::Replace(fault)) => End::Replaced(fault),
            Halt::Poked(Poked::Look) => End::Lost(self.lost(io::Error::other("it was interrupted"))),
            Halt::Ended if self.receiving.n_unanswered() == 0 => End::Idle,
            Halt::Ended => {
                let closed = io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed it");
                End::Lost(self.lost(closed))
            }
            Halt::Broken(error) => End::Lost(self.lost(error)),
            Halt::Store(error) => self.failed("write", error),
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
