//! One stream for as long as the transfer lasts: it connects, is driven, and connects again when it was lost.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::source::{RemoteName, Source};
use super::stream_driver::{Lost, StreamDriver, StreamOutcome};
use super::transfer::ActiveTransfer;
use super::wake::Wake;
use crate::failure::Failure;
use crate::manifest::StreamId;
use crate::proto::v2::Replacing;
use crate::schedule::Fault;

/// Runs `stream` until the transfer is over.
pub(super) async fn run_stream<S: Source>(transfer: Arc<ActiveTransfer<S>>, stream: StreamId) {
    let Some(wake) = transfer.streams.wake_of(stream) else { return };
    if let Err(error) = reconnecting(&transfer, stream, wake).await {
        transfer.completion.fail(error);
    }
}

/// One connection after the other.
async fn reconnecting<S: Source>(
    transfer: &ActiveTransfer<S>,
    stream: StreamId,
    wake: &Wake,
) -> Result<(), Failure> {
    let mut replacing = Replacing::Nothing;
    while !transfer.is_over() {
        let opened = match transfer.source.open(stream, replacing).await {
            Ok(opened) => opened,
            Err(error) => {
                pause(transfer, stream, error).await?;
                continue;
            }
        };
        wake.clear();
        let epoch = opened.epoch;
        let driver = StreamDriver::new(transfer, stream, wake, opened.stream);
        let outcome = driver.run(opened.rtt, opened.pushed).await;
        replacing = Replacing::Former;
        if transfer.is_over() {
            // The server resets what is within a frame when the transfer ends: that is no fault.
            return Ok(());
        }
        match outcome {
            StreamOutcome::Over => return Ok(()),
            StreamOutcome::Failed(error) => return Err(error),
            StreamOutcome::Idle => {
                transfer.closed(stream);
                sleep(transfer.streams.backoff(stream)).await;
                while !transfer.is_stream_needed() {
                    wake.woken().await;
                }
            }
            StreamOutcome::Replaced(fault) => transfer.lost(stream, description(fault).to_owned()),
            StreamOutcome::AnsweredByHttp => {
                // Nothing is lost with it: every stream through such a proxy begins like this once.
                transfer.closed(stream);
                if let Err(error) = transfer.source.reroute(epoch) {
                    pause(transfer, stream, error).await?;
                }
            }
            StreamOutcome::Violation(what) => {
                transfer.lost(stream, format!("protocol error: {what}"));
                let server = transfer.source.name().peer.clone();
                let error = Failure::Protocol { server, what };
                let pause =
                    transfer.streams.violated().and_then(|()| transfer.streams.retry(stream, transfer.now()));
                transfer.counters.retried();
                sleep(pause.map_err(|_| error)?).await;
            }
            StreamOutcome::NoSuchSession(lost) => {
                transfer.lost(stream, lost.reason.to_string());
                let error = match transfer.source.renew(epoch).await {
                    // Sessions are no progress: a server that forgets them is not asked indefinitely.
                    Ok(()) => connection_lost(transfer, stream, lost),
                    Err(error) => error,
                };
                pause(transfer, stream, error).await?;
            }
            StreamOutcome::Lost(lost) => {
                transfer.lost(stream, lost.reason.to_string());
                pause(transfer, stream, connection_lost(transfer, stream, lost)).await?;
            }
        }
    }
    Ok(())
}

/// The error that the loss of a connection is, when it is the last one.
fn connection_lost<S: Source>(transfer: &ActiveTransfer<S>, stream: StreamId, lost: Lost) -> Failure {
    let (RemoteName { peer, .. }, Lost { reason, received }) = (transfer.source.name().clone(), lost);
    let stream = Some(stream.byte());
    Failure::ConnectionLost { server: peer, stream, received, source: Some(reason) }
}

/// Waits before the next attempt; fails after too many, or if another one cannot succeed.
async fn pause<S: Source>(
    transfer: &ActiveTransfer<S>,
    stream: StreamId,
    error: Failure,
) -> Result<(), Failure> {
    // A proxy that has carried a stream answers instead of a server that restarts, or carries no more of them.
    let is_carrying = || transfer.counters.received() > 0 || transfer.streams.n_open() > 0;
    if error.is_shortage() {
        transfer.few_streams();
    }
    let is_temporary = error.is_retryable() && !matches!(error, Failure::SourceChanged { .. })
        || matches!(error, Failure::StreamsBlocked { .. }) && is_carrying();
    if !is_temporary {
        return Err(error);
    }
    let pause: Duration = transfer.streams.retry(stream, transfer.now()).map_err(|_| error)?;
    transfer.counters.retried();
    sleep(pause).await;
    Ok(())
}

fn description(fault: Fault) -> &'static str {
    match fault {
        Fault::Stalled => "no data arrived on it",
        Fault::Slow => "it was much slower than the others",
    }
}
