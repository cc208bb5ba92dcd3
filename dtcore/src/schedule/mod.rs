//! Which stream asks for which block, in which order, and what happens to slow, stalled and broken streams.
//!
//! A pure state machine: its driver tells what happened and when, a [`Duration`] since the transfer's start, and does
//! what it answers. Blocks are handed out in file order from one cursor; what a stream could not bring goes returned and
//! is handed out before anything else. At the end, when nothing is left, idle streams request a second time for what slower
//! ones assignment, and the first verified copy wins.
//!
//! The driver calls [`Scheduler::next`] for a stream until the answer is no [`Next::Ask`]: after each change on that
//! stream, and for all open streams after each [`Scheduler::tick`] and whenever blocks went returned. Goals: the slowest
//! stream does not decide when the transfer ends, and as long as one stream can be opened, the transfer completes. Not
//! a goal: the order in which the server reads.

mod backoff;
mod block_table;
mod hedge;
mod pool;
mod scheduler;
mod stream_state;
#[cfg(test)]
mod tests;
mod throughput;
mod watchdog;

pub(crate) use backoff::{Backoff, Retries};
pub(crate) use scheduler::Scheduler;

use std::time::Duration;

use crate::manifest::{BlockId, StreamId};

/// What the user and the kind of output demand of the scheduler.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Policy {
    /// How often a block may come with another digest before the transfer fails.
    pub(crate) max_corrupt: u32,
    /// For a consumer that takes the file in order: how many bytes beyond its position may be requested for.
    pub(crate) ahead: Option<u64>,
    /// Whether the user limits the rate; then a slow stream is no reason for anything.
    pub(crate) limited: bool,
    /// How long the user waits for a byte, at most; no other wait is longer.
    pub(crate) stall_timeout: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self { max_corrupt: 5, ahead: None, limited: false, stall_timeout: Duration::from_secs(60) }
    }
}

/// What a stream shall request for now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    /// This block; the scheduler counts it as requested for.
    Ask(BlockId),
    /// Nothing: enough is in flight on this stream.
    Full,
    /// Nothing now: request the scheduler again after the next change or tick.
    Idle,
    /// Nothing any more: every block is verified.
    Complete,
}

/// What a verified block was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verified {
    /// The first copy. Another stream may assignment the block too, and can throw its copy away when it comes.
    First {
        /// The other stream that requested for the block and has not received it wholly; two assignment a block at most.
        also_held_by: Option<StreamId>,
    },
    /// A copy of what was there already.
    Duplicate,
}

/// What follows from a block that does not match its digest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Corrupt {
    /// It is requested for again, on another stream if one is open.
    Again,
    /// It received so often and never matched that the transfer must fail.
    GiveUp {
        /// How often it received.
        times: u32,
    },
}

/// Why a stream's connection shall be ended and replaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// Nothing received although something was requested for.
    Stalled,
    /// Far less received than on the other streams.
    Slow,
}
