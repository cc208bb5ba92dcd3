//! The threads on which the streams run, and the end of their tasks.

use std::io;
use std::thread::available_parallelism;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use crate::error::TransferError;

/// More threads than this bring nothing: the streams' work is moving memory.
const MOST: usize = 8;

/// The streams' tasks, on threads of their own.
#[derive(Debug)]
pub(crate) struct Workers {
    runtime: Option<Runtime>,
    tasks: JoinSet<()>,
}

impl Workers {
    /// Threads for `n_streams` streams: no more than there are cores.
    pub(crate) fn start(n_streams: usize) -> Result<Self, TransferError> {
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
    pub(crate) fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = &self.runtime {
            self.tasks.spawn_on(task, runtime.handle());
        }
    }

    /// Waits until a stream's task dies, which none does unless something here is wrong; those that end are forgotten.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn died(&mut self) -> TransferError {
        while let Some(ended) = self.tasks.join_next().await {
            if ended.is_err_and(|error| error.is_panic()) {
                let source = io::Error::other("the task of a stream died");
                return TransferError::System { action: "go on", source };
            }
        }
        std::future::pending().await
    }

    /// Ends all tasks and waits until none of them touches anything any more.
    pub(crate) async fn end(mut self) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn a_task_that_dies_is_noticed_and_one_that_ends_is_not() {
        let mut workers = Workers::start(2).unwrap();
        workers.spawn(async {});
        workers.spawn(async { panic!("the test says so") });
        let TransferError::System { source, .. } = workers.died().await else { panic!() };
        assert_eq!(source.to_string(), "the task of a stream died");
        let mut workers = Workers::start(1).unwrap();
        let (session_end, ended) = tokio::sync::oneshot::channel::<()>();
        workers.spawn(async { drop(session_end) });
        ended.await.unwrap_err();
        assert!(workers.died().now_or_never().is_none());
        workers.end().await;
    }
}
