//! The log on stderr: the server's events as lines of logfmt or JSON, with an `event` and typed fields.
//!
//! Names are chosen by peers; both formats quote them and escape their control characters.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use dtcore::{Direction, ServerEvent, ServerEvents, StreamFailure, StreamRefusal, TransferFailure};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tracing::level_filters::LevelFilter;
use tracing::{Level, debug, enabled, error, info, warn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::args::{Args, LogFormat};
use crate::throttle::LogThrottle;

/// Sets up the log of the process.
pub(crate) fn start(args: &Args) {
    let level = match (args.quiet, args.verbose) {
        (true, _) => Level::ERROR,
        (false, true) => Level::DEBUG,
        (false, false) => Level::INFO,
    };
    let registry = tracing_subscriber::registry().with(LevelFilter::from_level(level));
    // A full or closed stderr must not become a panic. A second log in one process (a test that calls `main` twice) leaves the first one
    // in place.
    let _ = match args.log_format {
        LogFormat::Text => {
            let logfmt = tracing_logfmt::builder().with_target(false).layer();
            registry.with(logfmt.with_writer(io::stderr).log_internal_errors(false)).try_init()
        }
        LogFormat::Json => {
            let json = tracing_subscriber::fmt::layer().json().flatten_event(true).with_target(false);
            registry.with(json.with_writer(io::stderr).log_internal_errors(false)).try_init()
        }
    };
}

/// Writes what is short and then events, until the server has ended; then the returned channel ends too. The `signal` that ended it is
/// known by then.
///
/// It has its own thread, because a stderr that blocks must not block a thread that serves; and its own runtime, whose
/// clock continues when the server's has ended.
pub(crate) fn follow(
    events: ServerEvents,
    notices: Vec<String>,
    signal: Arc<OnceLock<&'static str>>,
) -> io::Result<oneshot::Receiver<()>> {
    let (over, ended) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let thread = thread::Builder::new().name("dt-log".to_owned());
    thread.spawn(move || {
        info!(event = "starting", version = env!("CARGO_PKG_VERSION"), "dtserver has started");
        for notice in notices {
            warn!(event = "notice", "{notice}");
        }
        runtime.block_on(write(events));
        info!(event = "stopping", signal = signal.get(), "dtserver ends");
        // If it took too long, the program no longer waits.
        let _ = over.send(());
    })?;
    Ok(ended)
}

/// The kinds of events that are summed up: a client that is refused can retry at once, any number of times. Every client and every name
/// that it has asked for is in a line, within the bounds of [`LogThrottle`].
#[derive(PartialEq, Eq, Hash, Clone, Debug)]
enum Kind {
    /// By the status of the answer.
    RequestRefused(u16, IpAddr, Option<PathBuf>),
    ConnectionRefused(StreamRefusal, IpAddr),
    StreamFailed(StreamFailure),
}

impl Kind {
    /// The kind of `event`, if it has one; a log of every stream sums up nothing.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the number of transfers bounds all others")]
    fn of(event: &ServerEvent) -> Option<Self> {
        match event {
            _ if enabled!(Level::DEBUG) => None,
            ServerEvent::RequestRefused { status, peer, path, .. } => {
                Some(Self::RequestRefused(*status, peer.ip(), path.clone()))
            }
            ServerEvent::StreamFailed { reason, .. } => Some(Self::StreamFailed(*reason)),
            ServerEvent::ConnectionRefused { reason, peer, .. } => {
                Some(Self::ConnectionRefused(*reason, peer.ip()))
            }
            _ => None,
        }
    }
}

async fn write(mut events: ServerEvents) {
    let mut missed = 0;
    let mut throttle = LogThrottle::new();
    loop {
        let next = match throttle.due(Instant::now()) {
            Some(due) => timeout_at(due, events.next()).await,
            None => Ok(events.next().await),
        };
        if events.missed() > missed {
            warn!(lost = events.missed() - missed, "the log was too slow for the events");
            missed = events.missed();
        }
        match next {
            Ok(Some(event)) => match Kind::of(&event) {
                Some(kind) => throttle.add(kind, event),
                None => write_one(&event, 1),
            },
            Ok(None) => break,
            // A line is due.
            Err(_) => {}
        }
        throttle.take(Instant::now()).for_each(|(event, n)| write_one(&event, n));
        report_untold(throttle.untold(Instant::now()));
    }
    throttle.rest().for_each(|(event, n)| write_one(&event, n));
}

/// Reports what was not summed up, because there were too many kinds of it.
fn report_untold(n: u64) {
    if n > 0 {
        warn!(
            event = "log_overflow",
            lost = n,
            "too many different refusals in a second for a line about each"
        );
    }
}

/// Writes a line about `event`, and how many more of its kind it stands for.
fn write_one(event: &ServerEvent, n: u64) {
    let times = Some(n).filter(|n| *n > 1);
    match event {
        ServerEvent::TransferStarted {
            transfer,
            direction,
            protocol,
            peer,
            path,
            size,
            streams,
            port,
            ..
        } => {
            let (transfer, streams) = (transfer.value(), streams.value());
            let (peer, path) = (peer.to_string(), shown(path));
            let event = "transfer_started";
            let direction = direction_of(*direction);
            info!(event, transfer, direction, protocol, peer, path, size, streams, port, "transfer started");
        }
        ServerEvent::TransferFinished { transfer, direction, peer, path, size, bytes, elapsed, .. } => {
            let (peer, path, seconds, rate) = ended(peer, path, *bytes, *elapsed);
            let (event, transfer, outcome) = ("transfer_finished", transfer.value(), "finished");
            let direction = direction_of(*direction);
            info!(
                event,
                transfer, direction, outcome, peer, path, size, bytes, seconds, rate, "transfer finished"
            );
        }
        ServerEvent::TransferExpired {
            transfer, direction, peer, path, size, bytes, elapsed, idle, ..
        } => {
            let (peer, path, seconds, rate) = ended(peer, path, *bytes, *elapsed);
            let (event, transfer, outcome) = ("transfer_expired", transfer.value(), "expired");
            let idle = rounded(*idle);
            let text = "transfer expired: no stream was open for too long";
            let direction = direction_of(*direction);
            warn!(
                event,
                transfer, direction, outcome, peer, path, size, bytes, seconds, rate, idle, "{text}"
            );
        }
        ServerEvent::TransferFailed {
            transfer, direction, peer, path, size, bytes, elapsed, reason, ..
        } => {
            let (peer, path, seconds, rate) = ended(peer, path, *bytes, *elapsed);
            let (event, transfer, outcome) = ("transfer_failed", transfer.value(), outcome_of(*reason));
            let text = format!("transfer failed: {reason}");
            let direction = direction_of(*direction);
            warn!(event, transfer, direction, outcome, peer, path, size, bytes, seconds, rate, "{text}");
        }
        ServerEvent::StreamOpened { transfer, stream, peer, .. } => {
            let (transfer, stream, peer) = (transfer.value(), stream.byte(), peer.to_string());
            debug!(event = "stream_opened", transfer, stream, peer, "stream opened");
        }
        ServerEvent::StreamFinished { transfer, stream, bytes, .. } => {
            let (transfer, stream) = (transfer.value(), stream.byte());
            debug!(event = "stream_finished", transfer, stream, bytes, "stream finished");
        }
        ServerEvent::StreamFailed { transfer, stream, bytes, reason, .. } => {
            let (transfer, stream, reason) = (transfer.value(), stream.byte(), reason.to_string());
            warn!(event = "stream_failed", times, transfer, stream, bytes, reason, "stream failed");
        }
        ServerEvent::StreamRefused { transfer, peer, reason, .. } => {
            let (transfer, peer, reason) = (transfer.value(), peer.to_string(), reason.to_string());
            debug!(event = "stream_refused", transfer, peer, reason, "stream refused");
        }
        ServerEvent::ConnectionRefused { peer, reason, .. } => {
            let (event, peer, text) = ("connection_refused", peer.to_string(), reason.to_string());
            if matches!(reason, StreamRefusal::Tls | StreamRefusal::NoCapacity) {
                info!(event, times, peer, reason = text, "connection refused");
            } else {
                debug!(event, peer, reason = text, "connection refused");
            }
        }
        ServerEvent::RequestRefused { peer, status, reason, path, .. } => {
            let (event, peer, path) = ("request_refused", peer.to_string(), path.as_deref().map(shown));
            info!(event, times, peer, status, reason, path, "request refused");
        }
        ServerEvent::AcceptFailed { reason, .. } => {
            error!(event = "accept_failed", reason, "cannot accept connections; retrying");
        }
        _ => {}
    }
}

/// What every line about the end of a transfer has: the client, the file, the seconds, and the rate in bytes a second.
fn ended(peer: &SocketAddr, path: &Path, bytes: u64, elapsed: Duration) -> (String, String, f64, u64) {
    let rate = u128::from(bytes) * 1_000_000_000 / elapsed.as_nanos().max(1);
    (peer.to_string(), shown(path), rounded(elapsed), u64::try_from(rate).unwrap_or(u64::MAX))
}

/// Seconds with three digits after the point.
fn rounded(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}

fn direction_of(direction: Direction) -> &'static str {
    match direction {
        Direction::Download => "download",
        Direction::Upload => "upload",
    }
}

/// How a transfer ended, as one word for programs.
fn outcome_of(reason: TransferFailure) -> &'static str {
    match reason {
        TransferFailure::SourceChanged => "source_changed",
        TransferFailure::ClientLeft => "client_left",
        TransferFailure::ShutDown => "shut_down",
        TransferFailure::DiskFull => "disk_full",
        TransferFailure::NotStored => "not_stored",
        _ => "failed",
    }
}

/// How many bytes of a name are written: a request may hold 16 KiB, and a log is for people.
const LONGEST_NAME: usize = 256;

/// A name from a peer as text, not too long. Both formats escape its control characters.
fn shown(path: &Path) -> String {
    let text = path.to_string_lossy();
    match text.char_indices().map(|(at, _)| at).find(|at| *at >= LONGEST_NAME) {
        Some(end) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_name_is_cut_between_characters() {
        for (len, expected) in [(1, 1), (256, 256), (257, 259), (16 << 10, 259)] {
            assert_eq!(shown(Path::new(&"x".repeat(len))).len(), expected, "{len}");
        }
        assert_eq!(shown(Path::new(&format!("x{}", "ü".repeat(200)))).len(), 257 + 3);
    }

    #[test]
    fn times_are_not_invented() {
        assert_eq!(
            (rounded(Duration::from_nanos(21_392)), rounded(Duration::from_micros(12_345_678))),
            (0.0, 12.346)
        );
    }
}
