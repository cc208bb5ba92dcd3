//! One stream for as long as the transfer lasts: it connects, is driven, and connects again when it was lost.

use std::sync::Arc;

use tokio::time::sleep;

use super::source::Source;
use super::stream_driver::StreamDriver;
use super::stream_outcome::StreamOutcome;
use super::transfer::ActiveTransfer;
use super::wake::Wake;
use crate::failure::Failure;
use crate::manifest::StreamId;
use crate::proto::v2::Replacing;

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
        // Saved blocks are verified on the first stream.
        let verified_on = transfer.verified_on.lock().take_if(|_| stream.index() == 0);
        let opened = match verified_on {
            Some(opened) => Ok(opened),
            None => transfer.source.open(stream, replacing).await,
        };
        let opened = match opened {
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
            outcome @ (StreamOutcome::Replaced(_)
            | StreamOutcome::AnsweredByHttp
            | StreamOutcome::Violation(_)
            | StreamOutcome::NoSuchSession(_)
            | StreamOutcome::Lost(_)) => {
                match outcome.reason() {
                    Some(reason) => transfer.lost(stream, reason),
                    None => transfer.closed(stream),
                }
                if let Some(error) = outcome.failure(&transfer.source, stream, epoch).await? {
                    pause(transfer, stream, error).await?;
                }
            }
        }
    }
    Ok(())
}

/// Waits before the next attempt; fails after too many, or if another one cannot succeed.
async fn pause<S: Source>(
    transfer: &ActiveTransfer<S>,
    stream: StreamId,
    error: Failure,
) -> Result<(), Failure> {
    let is_carrying = transfer.counters.received() > 0 || transfer.streams.n_open() > 0;
    if error.is_shortage() {
        transfer.few_streams();
    }
    let pause = transfer.streams.pause_after(error, stream, transfer.now(), is_carrying)?;
    transfer.counters.retried();
    sleep(pause).await;
    Ok(())
}
