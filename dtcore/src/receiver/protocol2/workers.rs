//! The threads on which the streams run, and the end of their tasks.

use std::thread::available_parallelism;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use crate::error::TransferError;

/// More threads than this bring nothing: the streams' work is moving memory.
const MOST: usize = 8;

/// The streams' tasks, on threads of their own.
#[derive(Debug)]
pub(super) struct Workers {
    runtime: Option<Runtime>,
    tasks: JoinSet<()>,
}

impl Workers {
    /// Threads for `n_streams` streams: no more than there are cores.
    pub(super) fn start(n_streams: usize) -> Result<Self, TransferError> {
        let n_cores = available_parallelism().map_or(1, usize::from);
        let runtime = Builder::new_multi_thread()
            .worker_threads(n_streams.min(n_cores).clamp(1, MOST))
            .thread_name("dt-stream")
            .enable_all()
            .build()
            .map_err(|source| TransferError::System { action: "start the streams' threads", source })?;
        Ok(Self { runtime: Some(runtime), tasks: JoinSet::new() })
    }

    /// Runs a stream's task.
    pub(super) fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = &self.runtime {
            self.tasks.spawn_on(task, runtime.handle());
        }
    }

    /// Ends all tasks and waits until none of them touches anything any more.
    pub(super) async fn end(mut self) {
        self.tasks.shutdown().await;
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A name that is still being resolved must not hold up the end.
            runtime.shutdown_background();
        }
    }
}
