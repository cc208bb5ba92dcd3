//! What all streams of a transfer share: who fetches what, what has come, and what became of it.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::access::Access;
use super::line::Line;
use crate::error::TransferError;
use crate::event::{Event, EventSender, Progress, Trouble};
use crate::integrity::{Blake3Digest, RangeDigest};
use crate::plan::{BlockIndex, BlockPlan, BlockSet, ByteRange, StreamId};
use crate::receiver::follower::Follower;
use crate::receiver::options::Options;
use crate::schedule::{Corrupt, Next, Retries, Scheduler, TokenBucket, Verified as Copy};
use crate::session::Receiving;
use crate::storage::{BlockFile, CommitError, Recovered, Verified};
use crate::wire::v2::WholeDigestsReply;

/// What the tasks of one transfer share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) plan: BlockPlan,
    pub(super) blocks: BlockFile,
    pub(super) access: Access,
    pub(super) events: EventSender,
    follower: Option<Follower>,
    lines: Vec<Line>,
    state: Mutex<State>,
    limiter: Option<Mutex<TokenBucket>>,
    /// A place that was leased is free again.
    released: Notify,
    /// The transfer is over, or has failed.
    ended: Notify,
    started: Instant,
}

#[derive(Debug)]
struct State {
    scheduler: Scheduler,
    retries: Retries,
    digests: Vec<RangeDigest>,
    whole: Whole,
    /// Blocks of which a proven copy waits for its place.
    proven: BTreeSet<BlockIndex>,
    /// How far the follower was told to go.
    followed: u64,
    received: u64,
    received_after: Duration,
    trouble: Trouble,
    failure: Option<TransferError>,
    /// Whether the server was told that the transfer is over.
    told_end: bool,
}

/// What is known of the server's digests of the whole file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Whole {
    NotAsked,
    AskedOn(StreamId),
    Known(WholeDigestsReply),
}

/// What a stream shall do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Turn {
    /// Receive what it has asked for, or wait for something to ask for.
    Go,
    /// The transfer is over, and this stream is to tell the server.
    TellEnd,
    /// The transfer is over.
    Over,
}

/// What became of a received copy of a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stored {
    First,
    Duplicate,
}

/// What a transfer starts with.
pub(super) struct Beginning {
    pub(super) options: Options,
    pub(super) plan: BlockPlan,
    pub(super) blocks: BlockFile,
    pub(super) access: Access,
    pub(super) events: EventSender,
    pub(super) follower: Option<Follower>,
    pub(super) scheduler: Scheduler,
    pub(super) retries: Retries,
    pub(super) digests: Vec<RangeDigest>,
    pub(super) started: Instant,
}
