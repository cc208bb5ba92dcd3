//! One stream for as long as the transfer lasts: it connects, converses, and connects again when it was lost.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::client::dialled_source::{Dialled, Elsewhere, Way};
use crate::error::TransferError;
use crate::event::Event;
use crate::manifest::StreamId;
use crate::proto::v2::Replacing;
use crate::receive::frame_reader::FrameReader;
use crate::receive::shared::Shared;
use crate::receive::stream_driver::{End, Lost, StreamDriver, Unheard};
use crate::receive::wake::Line;
use crate::schedule::Fault;

/// Keeps `stream` going until the transfer is over.
pub(crate) async fn keep(shared: Arc<Shared>, stream: StreamId) {
    let Some(line) = shared.line(stream) else { return };
    if let Err(error) = lives(&shared, stream, line).await {
        shared.fail(error);
    }
}

/// The lives of a stream, one after the other.
async fn lives(shared: &Shared, stream: StreamId, line: &Line) -> Result<(), TransferError> {
    let mut replacing = Replacing::Nothing;
    let mut found = None;
    while !shared.is_over() {
        let begun = Instant::now();
        let (begun, dialled) = match found.take() {
            Some(found) => found,
            None => match shared.access.connect(&shared.options).await {
                Ok(dialled) => (begun, dialled),
                Err(error) => {
                    pause(shared, stream, error).await?;
                    continue;
                }
            },
        };
        if let Some(data) = dialled.fell_back {
            shared.events.send(Event::FellBack { data });
        }
        line.clear();
        let way = dialled.way;
        let hello = dialled.hello(stream, replacing);
        let reader = FrameReader::new(dialled.socket);
        // What was spent on finding another way is no round trip, but errs on the safe side.
        let rtt = begun.elapsed();
        let end = StreamDriver::new(shared, stream, line, reader, way).run(&hello, rtt).await;
        replacing = Replacing::Former;
        if shared.is_over() {
            // The server resets what is in the middle of a frame when it is told the end: that is nobody's trouble.
            return Ok(());
        }
        match end {
            End::Over => return Ok(()),
            End::Failed(error) => return Err(error),
            End::Idle => {
                sleep(shared.closed(stream)).await;
                while !shared.is_needed() {
                    line.woken().await;
                }
            }
            End::Replaced(fault) => shared.lost(stream, words(fault).to_owned()),
            End::NoSuchSession(lost) => {
                shared.lost(stream, lost.reason.to_string());
                match shared.access.renew(way, &shared.options).await {
                    Ok(Some(data)) => shared.events.send(Event::FellBack { data }),
                    // Granted sessions are no progress: a server that forgets them is not asked for ever.
                    Ok(None) => pause(shared, stream, broken_off(shared, stream, lost)).await?,
                    Err(error) => pause(shared, stream, error).await?,
                }
            }
            End::Lost(lost) => {
                shared.lost(stream, lost.reason.to_string());
                pause(shared, stream, broken_off(shared, stream, lost)).await?;
            }
            End::Unheard(unheard) => found = elsewhere(shared, stream, way, unheard).await?,
        }
    }
    Ok(())
}

/// Finds another way for a stream that heard nothing on `way`, and since when it was looked for. Where there is none, its
/// connection has ended like any other.
///
/// Leaving the data port counts as none of the tries that the user allows; no way leads back there.
async fn elsewhere(
    shared: &Shared,
    stream: StreamId,
    way: Way,
    unheard: Unheard,
) -> Result<Option<(Instant, Dialled)>, TransferError> {
    let begun = Instant::now();
    let reason = match &unheard {
        Unheard::Lost(lost) => lost.reason.to_string(),
        Unheard::Replaced(fault) => words(*fault).to_owned(),
        Unheard::Failed(error) => error.to_string(),
    };
    shared.lost(stream, reason);
    match (shared.access.leave(way, &shared.options).await, unheard) {
        (Elsewhere::Found(dialled), _) => {
            shared.reset_timers();
            return Ok(Some((begun, *dialled)));
        }
        (Elsewhere::Already, _) | (Elsewhere::No, Unheard::Replaced(_)) => {}
        (Elsewhere::No, Unheard::Lost(lost)) => {
            pause(shared, stream, broken_off(shared, stream, lost)).await?;
        }
        (Elsewhere::No, Unheard::Failed(error)) => return Err(error),
    }
    Ok(None)
}

/// The error that the loss of a connection is, when it is the last one.
fn broken_off(shared: &Shared, stream: StreamId, lost: Lost) -> TransferError {
    let Lost { reason, received } = lost;
    let (server, stream) = (shared.server(), Some(stream.byte()));
    TransferError::ConnectionLost { server, stream, received, source: Some(reason) }
}

/// Waits before the next try; fails when it was tried often enough, or cannot get better.
async fn pause(shared: &Shared, stream: StreamId, error: TransferError) -> Result<(), TransferError> {
    if !error.is_retryable() || matches!(error, TransferError::SourceChanged { .. }) {
        return Err(error);
    }
    let pause: Duration = shared.retry(stream, error)?;
    sleep(pause).await;
    Ok(())
}

fn words(fault: Fault) -> &'static str {
    match fault {
        Fault::Stalled => "nothing came on it any more",
        Fault::Slow => "it was much slower than the others",
    }
}
