//! What all streams of a transfer share: who fetches what, what has come, and what became of it.

mod blocks;
mod connections;
mod hashing;
mod oversight;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::client::dialled_source::DialledSource;
use crate::client::options::Options;
use crate::digest::RangeDigest;
use crate::error::TransferError;
use crate::event::{EventSender, RecoveryStats};
use crate::manifest::{BlockId, ByteRange, Manifest, StreamId};
use crate::proto::v2::{Requester, WholeDigestsReply};
use crate::receive::in_order::InOrderReader;
use crate::receive::rate_limit::TokenBucket;
use crate::receive::wake::Line;
use crate::schedule::{Backoff, Next, Retries, Scheduler};
use crate::sink::FileSink;
use hashing::{Hashing, Heard};

/// What the tasks of one transfer share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) manifest: Manifest,
    pub(crate) blocks: FileSink,
    pub(crate) access: DialledSource,
    pub(crate) events: EventSender,
    /// The file that errors name.
    path: PathBuf,
    follower: Option<InOrderReader>,
    lines: Vec<Line>,
    state: Mutex<State>,
    limiter: Option<Mutex<TokenBucket>>,
    /// The place of a block is free or filled.
    place_freed: Arc<Notify>,
    /// The transfer is over, or has failed.
    ended: Notify,
    /// No connection converses any more.
    quiet: Notify,
    started: Instant,
}

#[derive(Debug)]
struct State {
    scheduler: Scheduler,
    retries: Retries,
    backoffs: Vec<Backoff>,
    n_open: u8,
    digests: Vec<Option<RangeDigest>>,
    whole: Whole,
    /// When they were asked for, and when the server was last heard of them, or first expected to be.
    whole_asked: Duration,
    whole_heard: Duration,
    hashing: Hashing,
    /// When the streams were last looked after.
    watched: Duration,
    /// The streams that wait for something to ask for.
    idle: BTreeSet<StreamId>,
    /// Blocks of which a proven copy waits for its place, and what it was proven by.
    proven: BTreeMap<BlockId, RangeDigest>,
    /// How far the follower was told to go.
    followed: u64,
    /// Bytes that were there already.
    resumed: u64,
    received: u64,
    /// Bytes of blocks that are there and proven.
    verified: u64,
    received_after: Duration,
    trouble: RecoveryStats,
    failure: Option<TransferError>,
    /// How many connections converse.
    n_talking: usize,
    /// Whether everything has come and is right, which the server is to be told.
    is_accepted: bool,
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
pub(crate) enum Turn {
    /// Receive what it has asked for, or wait for something to ask for.
    Go,
    /// The transfer is over.
    Over,
}

impl State {
    /// Whether every block and the server's digests of the whole file are there.
    fn is_done(&self) -> bool {
        self.scheduler.is_complete() && matches!(self.whole, Whole::Known(_))
    }

    /// That nothing came until `now` is no fault of any stream's.
    fn reset_timers(&mut self, now: Duration) {
        self.scheduler.reset_timers(now);
        (self.whole_asked, self.whole_heard) = (now, now);
    }
}

/// What a transfer starts with.
pub(crate) struct Beginning {
    pub(crate) options: Options,
    pub(crate) manifest: Manifest,
    pub(crate) blocks: FileSink,
    pub(crate) place_freed: Arc<Notify>,
    pub(crate) access: DialledSource,
    pub(crate) events: EventSender,
    pub(crate) path: PathBuf,
    pub(crate) follower: Option<InOrderReader>,
    pub(crate) scheduler: Scheduler,
    pub(crate) retries: Retries,
    pub(crate) digests: Vec<Option<RangeDigest>>,
    pub(crate) started: Instant,
    /// Bytes that are there already.
    pub(crate) resumed: u64,
}

impl Shared {
    pub(crate) fn new(beginning: Beginning) -> Self {
        let Beginning { options, manifest, blocks, place_freed, access, events, path, follower, .. } =
            beginning;
        let Beginning { scheduler, retries, digests, started, resumed, .. } = beginning;
        // What was done before, such as proving what is there, may have taken minutes.
        let now = started.elapsed();
        let limiter = options.limit_rate.map(|rate| Mutex::new(TokenBucket::new(rate)));
        let state = State {
            scheduler,
            retries,
            backoffs: options.streams.ids().map(Backoff::new).collect(),
            n_open: 0,
            digests,
            whole: Whole::NotAsked,
            whole_asked: now,
            whole_heard: now,
            hashing: Hashing::default(),
            watched: now,
            idle: BTreeSet::new(),
            proven: BTreeMap::new(),
            followed: 0,
            resumed,
            received: 0,
            verified: resumed,
            received_after: Duration::ZERO,
            trouble: RecoveryStats::default(),
            failure: None,
            n_talking: 0,
            is_accepted: false,
        };
        let lines = options.streams.ids().map(|_| Line::default()).collect();
        let shared = Self {
            options,
            manifest,
            blocks,
            access,
            events,
            path,
            follower,
            lines,
            state: Mutex::new(state),
            limiter,
            place_freed,
            ended: Notify::new(),
            quiet: Notify::new(),
            started,
        };
        shared.follow(&mut shared.state());
        shared
    }

    /// Time since the transfer began, which is the clock of all decisions.
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub(crate) fn line(&self, stream: StreamId) -> Option<&Line> {
        self.lines.get(stream.index())
    }

    /// Puts the demands that `stream` shall make now into `demands`.
    pub(crate) fn turn(&self, stream: StreamId, requester: &mut Requester, demands: &mut Vec<u8>) -> Turn {
        let now = self.now();
        let mut state = self.state();
        if state.failure.is_some() || state.is_accepted {
            return Turn::Over;
        }
        while let Next::Ask(block) = state.scheduler.next(stream, now) {
            // The scheduler has fewer in flight than may be unanswered.
            let Some(demand) = requester.ask_block(block) else { break };
            demands.extend_from_slice(&demand);
        }
        // The sender can compute what is missing while the last blocks are on their way.
        if state.whole == Whole::NotAsked
            && state.scheduler.is_all_assigned()
            && let Some(demand) = requester.ask_digests(self.options.digests())
        {
            state.whole = Whole::AskedOn(stream);
            state.whole_asked = now;
            // They may take as long as hashing the file does.
            state.scheduler.detain(stream);
            demands.extend_from_slice(&demand);
        }
        if requester.n_unanswered() == 0 {
            state.idle.insert(stream);
        } else {
            state.idle.remove(&stream);
        }
        Turn::Go
    }

    /// `n` bytes more of a block came on `stream`.
    pub(crate) fn progressed(&self, stream: StreamId, n: usize) {
        let (now, n) = (self.now(), length(n));
        let mut state = self.state();
        state.received = state.received.saturating_add(n);
        state.scheduler.received(stream, n, now);
    }

    /// The server still computes the digests of the whole file, for which it has read `hashed` bytes.
    pub(crate) fn hashes(&self, hashed: u64) {
        let now = self.now();
        let mut state = self.state();
        state.whole_heard = now;
        if state.hashing.heard(hashed, now) == Heard::Farther {
            state.retries.progressed();
        }
    }

    /// `n` bytes were received for nothing.
    pub(crate) fn wasted(&self, n: u64) {
        let mut state = self.state();
        state.trouble.wasted_bytes = state.trouble.wasted_bytes.saturating_add(n);
    }

    /// Whether nobody has a proven copy of `block` yet.
    pub(crate) fn is_wanted(&self, block: BlockId) -> bool {
        let state = self.state();
        !state.proven.contains_key(&block) && state.scheduler.is_wanted(block)
    }

    /// The answer with `block` has come on `stream` to its end and was thrown away, because another copy was faster.
    pub(crate) fn skipped(&self, stream: StreamId, block: BlockId) {
        let now = self.now();
        self.state().scheduler.skipped(stream, block, now);
    }

    /// The server's digests of the whole file have come.
    pub(crate) fn whole(&self, digests: WholeDigestsReply) {
        let mut state = self.state();
        if let Whole::AskedOn(stream) = state.whole {
            state.scheduler.set_free(stream);
        }
        state.whole = Whole::Known(digests);
        drop(state);
        self.wake_all();
        self.look_at_end();
    }

    /// The digests of the blocks that are there.
    pub(crate) fn block_digests(&self) -> Vec<Option<RangeDigest>> {
        self.state().digests.clone()
    }

    /// Whether nothing is left to do, or everything is in vain.
    pub(crate) fn is_over(&self) -> bool {
        let state = self.state();
        state.failure.is_some() || state.is_done()
    }

    /// Ends the transfer with an error; the first one counts.
    pub(crate) fn fail(&self, error: TransferError) {
        self.state().failure.get_or_insert(error);
        self.look_at_end();
    }

    /// The local file's error.
    pub(crate) fn local(&self, action: &'static str, error: io::Error) -> TransferError {
        TransferError::local(action, &self.path, self.manifest.size(), error)
    }

    /// Waits until so many bytes may be received as it returns, at least one.
    pub(crate) async fn allowance(&self) -> usize {
        let Some(limiter) = &self.limiter else { return usize::MAX };
        loop {
            let granted = limiter.lock().unwrap_or_else(PoisonError::into_inner).take(self.now());
            match granted {
                Ok(n) => return n,
                Err(wait) => sleep(wait).await,
            }
        }
    }

    /// Gives back what was allowed and not received.
    pub(crate) fn give_back(&self, allowed: usize, received: usize) {
        if let Some(limiter) = &self.limiter {
            let unused = allowed.saturating_sub(received);
            limiter.lock().unwrap_or_else(PoisonError::into_inner).give_back(unused);
        }
    }
}

/// What both sides use.
impl Shared {
    fn look_at_end(&self) {
        self.ended.notify_one();
    }

    /// Lets the follower read what has become contiguous with the file's beginning.
    fn follow(&self, state: &mut State) {
        let frontier = state.scheduler.frontier();
        if let Some(follower) = &self.follower {
            follower.push(self.blocks.store(), ByteRange::new(state.followed, frontier));
        }
        state.followed = frontier;
    }

    fn wake_all(&self) {
        self.lines.iter().for_each(Line::wake);
    }

    pub(crate) fn server(&self) -> String {
        self.options.server.to_string()
    }

    pub(crate) fn name(&self) -> String {
        self.options.name.to_string_lossy().into_owned()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock can panic in the middle of a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn length(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
