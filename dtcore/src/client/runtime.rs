//! The threads that transfers run on: a set that all transfers of a client share, or a runtime of the program that embeds it.

use std::sync::Arc;
use std::thread::available_parallelism;

use tokio::runtime::{Builder, Handle, Runtime};

use crate::failure::Failure;
use crate::sys::available_threads;

/// More threads than this gain nothing: the work of streams is moving memory.
const MAX_THREADS: usize = 8;

/// How many outputs may be opened, read back or published at once; more wait for their turn.
const MAX_BLOCKING_THREADS: usize = 32;

/// How many of them, and of those that read in order, a transfer may need at once.
const BLOCKING_THREADS: usize = 3;

/// Where transfers run.
#[derive(Clone, Debug)]
pub(super) enum Threads {
    /// On threads of their own.
    Own(Arc<OwnThreads>),
    /// On the embedder's runtime.
    Embedder(Handle),
}

/// A runtime that is shut down in the background, because dropping one within another would block.
#[derive(Debug)]
pub(super) struct OwnThreads(Option<Runtime>);

impl Threads {
    /// As many threads as there are cores, eight at most.
    pub(super) fn start() -> Result<Self, Failure> {
        let n_workers = available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
        let wanted = n_workers + BLOCKING_THREADS;
        let (n_workers, n_blocking) = match available_threads(wanted) {
            0 | 1 => return Err(Failure::no_threads()),
            n if n < wanted => (n_workers.min(n - 1), (n - 1).saturating_sub(n_workers).max(1)),
            _ => (n_workers, MAX_BLOCKING_THREADS),
        };
        let runtime = Builder::new_multi_thread()
            .worker_threads(n_workers)
            .max_blocking_threads(n_blocking)
            .thread_name("dt-transfer")
            .enable_all()
            .build()
            .map_err(|source| Failure::System { action: "start threads", source })?;
        Ok(Self::Own(Arc::new(OwnThreads(Some(runtime)))))
    }

    /// Runs a task there. It keeps the threads alive, so that a transfer cleans up whose client and handle are dropped.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        match self {
            Self::Own(own) => {
                let kept = Arc::clone(own);
                if let Some(runtime) = &own.0 {
                    runtime.spawn(async move {
                        task.await;
                        drop(kept);
                    });
                }
            }
            Self::Embedder(handle) => {
                handle.spawn(task);
            }
        }
    }
}

impl Drop for OwnThreads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // A name that is still being resolved must not delay the end.
            runtime.shutdown_background();
        }
    }
}
