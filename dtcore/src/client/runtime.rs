//! The threads that transfers run on: a set that all transfers of a client share, or a runtime of the program that embeds it.

use std::io;
use std::sync::Arc;
use std::thread::{self, available_parallelism};

use tokio::runtime::{Builder, Handle, Runtime};

use crate::failure::Failure;
use crate::sync::Lock;

/// More threads than this gain nothing: the work of streams is moving memory.
const MAX_THREADS: usize = 8;

/// How many outputs may be opened, read back or published at once; more wait for their turn.
const MAX_BLOCKING_THREADS: usize = 32;

/// How many threads a transfer needs besides those that move data: one prepares the output, one resolves names, one reads in
/// order.
const NEEDED_BESIDES: usize = 3;

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
        let failed = |source| Failure::System { action: "start threads", source };
        let n_wanted = available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
        let n_startable = startable(n_wanted + NEEDED_BESIDES).map_err(failed)?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(n_startable - NEEDED_BESIDES)
            .max_blocking_threads(MAX_BLOCKING_THREADS)
            .thread_name("dt-transfer")
            .enable_all()
            .build()
            .map_err(failed)?;
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

/// How many of `n` threads the system allows now, by starting them: tokio panics or waits indefinitely if it gets fewer than it
/// expects. Starting a dozen takes less than a millisecond.
///
/// # Errors
/// There are not enough for one that moves data.
fn startable(n: usize) -> io::Result<usize> {
    let gate = Arc::<Lock<()>>::default();
    let closed = gate.lock();
    let mut started = Vec::new();
    let mut failed = None;
    while started.len() < n && failed.is_none() {
        let gate = Arc::clone(&gate);
        match thread::Builder::new().name("dt-probe".to_owned()).spawn(move || drop(gate.lock())) {
            Ok(thread) => started.push(thread),
            Err(error) => failed = Some(error),
        }
    }
    drop(closed);
    let n_started = started.len();
    for thread in started {
        // It has nothing to panic about.
        let _ = thread.join();
    }
    match failed {
        Some(error) if n_started <= NEEDED_BESIDES => Err(error),
        Some(_) | None => Ok(n_started),
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
