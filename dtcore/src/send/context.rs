//! What all sessions of one process share.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::FairQueue;
use super::digest_cache::DigestCache;
use crate::transport::RateLimit;

/// What all sessions of one process share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) digests: DigestCache,
    /// Decides which session uses a core next.
    pub(crate) fair_queue: Arc<FairQueue>,
    pub(crate) timeouts: Timeouts,
    pub(crate) rate_limit: Option<RateLimit>,
    pub(crate) tasks: Tasks,
    /// Counts the bytes of files that were handed to the kernel.
    pub(crate) bytes_sent: Arc<AtomicU64>,
}

/// How long sessions and their streams wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    /// For a connection that accepts no byte.
    pub(crate) stall: Duration,
    /// For a request on an open stream.
    pub(crate) idle: Duration,
    /// For a stream of a session that has none.
    pub(crate) session: Duration,
}

/// The tasks of a process, and how they are asked to end.
#[derive(Clone, Default, Debug)]
pub(crate) struct Tasks {
    pub(crate) tracker: TaskTracker,
    /// Cancelled when nothing new is begun any more.
    pub(crate) draining: CancellationToken,
    /// Cancelled when everything that still runs must end now.
    pub(crate) aborted: CancellationToken,
}
