//! Which stream requests which blocks, in which order, and how slow, stalled and broken streams are handled.
//!
//! A pure state machine: the driver reports events with their time, a [`Duration`] since the start of the transfer, and
//! acts on the results. Blocks are assigned in file order from one cursor; blocks that a stream failed to deliver are
//! returned and assigned before all others. At the end, when every block is assigned, idle streams request a second copy
//! of what slower streams still have to deliver (hedging), and the first verified copy wins.
//!
//! The driver calls [`Scheduler::next_run`] for a stream until the result is not [`NextRun::Request`]: after each event
//! on that stream, and for all open streams after each [`Scheduler::tick`] and whenever blocks were returned. Goals: the
//! slowest stream does not determine when the transfer ends, and the transfer completes as long as one stream can be
//! opened. Not a goal: the order in which the server reads.

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

pub(crate) use backoff::{Backoff, Exhausted, Retries, RetryLimit};
pub(crate) use scheduler::Scheduler;

use std::time::Duration;

use crate::manifest::{BlockRun, StreamId};

/// What the user and the kind of output demand of the scheduler.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Policy {
    /// How many corrupt copies of a block fail the transfer.
    pub(crate) max_corrupt: u32,
    /// For a consumer that reads the file in order: how many bytes beyond its position may be requested.
    pub(crate) ahead: Option<u64>,
    /// Whether the user limits the rate. A slow stream then means nothing.
    pub(crate) limited: bool,
    /// The longest time without data that the user accepts; no other timeout is longer.
    pub(crate) stall_timeout: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self { max_corrupt: 5, ahead: None, limited: false, stall_timeout: Duration::from_secs(60) }
    }
}

/// What a stream should request now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NextRun {
    /// These blocks; the scheduler counts them as requested.
    Request(BlockRun),
    /// Nothing: enough is in flight on this stream.
    Full,
    /// Nothing for now: call again after the next event or tick.
    Idle,
    /// Nothing: every block is verified.
    Complete,
}

/// Whether a verified copy of a block was the first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum VerifiedCopy {
    /// The first copy.
    First {
        /// The other stream that has requested the block and may discard its copy; at most two streams have a block.
        also_assigned_to: Option<StreamId>,
    },
    /// Another copy was verified before.
    Duplicate,
}

/// How to continue after a corrupt copy of a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Corrupt {
    /// The block is requested again, on another stream if one is open.
    Again,
    /// So many copies were corrupt that the transfer must fail.
    GiveUp {
        /// How many copies of the block were corrupt.
        times: u32,
    },
}

/// Why a stream's connection should be closed and replaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// No data arrived although some was requested.
    Stalled,
    /// Far less data arrived than on the other streams.
    Slow,
}
