//! The log on stderr: the server's events as lines for people or for programs.
//!
//! Names come from peers, so they are written in their debug form: quoted, with control characters escaped.

use std::io::IsTerminal;

use dtcore::{ServerEvent, ServerEvents};
use tracing::{Level, debug, error, info, warn};

use crate::args::{Args, LogFormat};

/// Sets up the log for the whole process.
pub(crate) fn start(args: &Args) {
    let level = match (args.quiet, args.verbose) {
        (true, _) => Level::ERROR,
        (false, true) => Level::DEBUG,
        (false, false) => Level::INFO,
    };
    let log = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        // A full or closed stderr must not become a panic.
        .log_internal_errors(false)
        .with_max_level(level);
    // A second log in one process (a test that calls `main` twice) keeps the first.
    let _ = match args.log_format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
}

/// Writes events until the server has ended.
pub(crate) async fn write(mut events: ServerEvents) {
    let mut missed = 0;
    while let Some(event) = events.next().await {
        if events.missed() > missed {
            warn!(lost = events.missed() - missed, "the log was too slow for the events");
            missed = events.missed();
        }
        write_one(&event);
    }
}

fn write_one(event: &ServerEvent) {
    match event {
        ServerEvent::TransferStarted { transfer, protocol, peer, path, size, streams, port, .. } => {
            info!(%transfer, protocol, %peer, ?path, size, %streams, port, "transfer started");
        }
        ServerEvent::TransferFinished { transfer, bytes, elapsed, .. } => {
            info!(%transfer, bytes, seconds = elapsed.as_secs_f64(), "transfer finished");
        }
        ServerEvent::TransferExpired { transfer, missing, .. } => {
            warn!(%transfer, missing, "transfer expired: nobody came for its streams");
        }
        ServerEvent::TransferFailed { transfer, reason, .. } => {
            warn!(%transfer, %reason, "transfer failed");
        }
        ServerEvent::StreamOpened { transfer, stream, peer, .. } => {
            debug!(%transfer, %stream, %peer, "stream opened");
        }
        ServerEvent::StreamFinished { transfer, stream, bytes, .. } => {
            debug!(%transfer, %stream, bytes, "stream finished");
        }
        ServerEvent::StreamFailed { transfer, stream, bytes, reason, .. } => {
            warn!(%transfer, %stream, bytes, %reason, "stream failed");
        }
        ServerEvent::StreamRefused { transfer, peer, reason, .. } => {
            debug!(%transfer, %peer, %reason, "stream refused");
        }
        ServerEvent::ConnectionRefused { peer, reason, .. } => {
            debug!(%peer, %reason, "connection refused");
        }
        ServerEvent::RequestRefused { peer, status, reason, path, .. } => {
            info!(%peer, status, reason, path = path.as_ref().map(tracing::field::debug), "request refused");
        }
        ServerEvent::AcceptFailed { reason, .. } => {
            error!(reason, "cannot accept connections for the moment");
        }
        _ => debug!(?event, "event"),
    }
}
