//! The digests of the file that a receiver has requested on one stream: computed beside everything else on it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use super::digest_cache::DigestError;
use super::session::Session;
use crate::proto::v2::{ReportedDigests, Response, WholeDigests};

/// How often a receiver that waits for digests gets a `WAIT`.
const WAIT_INTERVAL: Duration = Duration::from_secs(1);

/// The most requests that are kept; the protocol allows no more unanswered ones.
const MAX_REQUESTS: usize = 1024;

/// The requests for digests on one stream, answered in order.
pub(crate) struct DigestQueue {
    session: Arc<Session>,
    /// Requests that wait until the one before them is answered.
    waiting: VecDeque<WholeDigests>,
    computing: Option<Computing>,
}

struct Computing {
    digests: AbortOnDropHandle<Result<ReportedDigests, DigestError>>,
    next_wait: Instant,
}

impl DigestQueue {
    pub(crate) fn new(session: Arc<Session>) -> Self {
        Self { session, waiting: VecDeque::new(), computing: None }
    }

    /// Adds a request; `None` if there are too many.
    pub(crate) fn request(&mut self, which: WholeDigests) -> Option<()> {
        if self.waiting.len() >= MAX_REQUESTS {
            return None;
        }
        self.waiting.push_back(which);
        self.compute_next();
        Some(())
    }

    /// Whether every request was answered.
    pub(crate) fn is_empty(&self) -> bool {
        self.computing.is_none()
    }

    /// The next frame: `DIGESTS`, or `WAIT` while they are being computed. Never returns if nothing is requested.
    ///
    /// # Errors
    /// Why the digests cannot be had.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Vec<u8>, DigestError> {
        let Some(Computing { digests, next_wait }) = &mut self.computing else {
            return std::future::pending().await;
        };
        let digests = tokio::select! {
            biased;
            digests = digests => digests,
            () = sleep_until(*next_wait) => {
                *next_wait = Instant::now() + WAIT_INTERVAL;
                return Ok(Response::Wait { hashed: self.session.digest_progress() }.encode().to_vec());
            }
        };
        self.computing = None;
        self.compute_next();
        digests.unwrap_or(Err(DigestError::Failed)).map(|digests| digests.encode())
    }

    fn compute_next(&mut self) {
        if self.computing.is_none()
            && let Some(which) = self.waiting.pop_front()
        {
            let session = Arc::clone(&self.session);
            let computing = async move { session.whole_digests(which).await };
            let digests = AbortOnDropHandle::new(self.session.context.tasks.tracker.spawn(computing));
            self.computing = Some(Computing { digests, next_wait: Instant::now() + WAIT_INTERVAL });
        }
    }
}
