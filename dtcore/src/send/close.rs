//! How a stream's connection is closed, so that everything that was sent arrives.

use tokio::time::timeout;

use super::context::Context;
use super::write::{Follows, write_all};
use crate::proto::v2::{ErrorCode, Response};
use crate::transport::{Connection, LINGER_TIMEOUT};

/// Closes a connection in order: a FIN, then the peer's end within the limits of a lingering close.
pub(crate) async fn close(context: &Context, connection: &Connection) {
    if connection.finish(context.timeouts.stall).is_ok() {
        tokio::select! {
            biased;
            () = context.tasks.aborted.cancelled() => {}
            _ = connection.linger(LINGER_TIMEOUT) => {}
        }
    }
}

/// Sends a refusal, and closes the connection so that it arrives.
pub(crate) async fn refuse(context: &Context, connection: &Connection, code: ErrorCode, reason: &str) {
    let refusing = async {
        let refusal = Response::refusal(code, reason);
        // After frames that the receiver has not accepted yet there may be no room at once.
        let writing = write_all(connection, &refusal, Follows::Nothing, LINGER_TIMEOUT);
        if matches!(timeout(LINGER_TIMEOUT, writing).await, Ok(Ok(()))) {
            close(context, connection).await;
        }
    };
    tokio::select! {
        biased;
        () = refusing => {}
        () = context.tasks.draining.cancelled() => {}
        () = context.tasks.aborted.cancelled() => {}
    }
}
