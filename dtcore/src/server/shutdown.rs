//! How a server ends: it drains, and what does not end in time is aborted.

use std::future::Future;
use std::time::Duration;

use tokio::time::timeout;

use crate::send::Tasks;

/// How long what was aborted may take to end.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// Waits until `shutdown` ends or the tasks drain already, drains them for `drain_timeout`, then aborts them.
///
/// # Cancel safety
/// Dropping the future aborts everything at once.
pub(crate) async fn run_until(tasks: &Tasks, shutdown: impl Future<Output = ()>, drain_timeout: Duration) {
    let _draining = tasks.draining.clone().drop_guard();
    let _aborted = tasks.aborted.clone().drop_guard();
    tokio::select! {
        () = tasks.draining.cancelled() => {}
        () = shutdown => {}
    }
    tasks.draining.cancel();
    tasks.tracker.close();
    if timeout(drain_timeout, tasks.tracker.wait()).await.is_err() {
        tasks.aborted.cancel();
        // Everything that can end ends at once.
        let _ = timeout(LAST_WAIT, tasks.tracker.wait()).await;
    }
}
