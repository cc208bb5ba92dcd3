//! The log on stderr: the server's events as lines for people or for programs.
//!
//! Names are chosen by peers, so they are written in their debug form: quoted, with control characters escaped.

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, IsTerminal};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread;

use dtcore::{ServerEvent, ServerEvents, StreamFailure, StreamRefusal};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tracing::{Level, debug, enabled, error, info, warn};

use crate::args::{Args, LogFormat};
use crate::throttle::LogThrottle;

/// Sets up the log of the process.
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
    // A second log in one process (a test that calls `main` twice) leaves the first one in place.
    let _ = match args.log_format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
}

/// Writes events until the server has ended; then the returned channel ends too.
///
/// It has its own thread, because a stderr that blocks must not block a thread that serves; and its own runtime, whose
/// clock continues when the server's has ended.
pub(crate) fn follow(events: ServerEvents) -> io::Result<oneshot::Receiver<()>> {
    let (over, ended) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let thread = thread::Builder::new().name("dt-log".to_owned());
    thread.spawn(move || {
        runtime.block_on(write(events));
        // If it took too long, the program no longer waits.
        let _ = over.send(());
    })?;
    Ok(ended)
}

/// The kinds of events that are summed up: a client that is refused can retry at once, any number of times.
#[derive(PartialEq, Eq, Debug)]
enum Kind {
    /// By the status of the answer.
    RequestRefused(u16),
    ConnectionRefused(StreamRefusal),
    StreamFailed(StreamFailure),
}

impl Kind {
    /// The kind of `event`, if it has one; a log of every stream throttle up nothing.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the number of transfers bounds all others")]
    fn of(event: &ServerEvent) -> Option<Self> {
        match event {
            _ if enabled!(Level::DEBUG) => None,
            ServerEvent::RequestRefused { status, .. } => Some(Self::RequestRefused(*status)),
            ServerEvent::StreamFailed { reason, .. } => Some(Self::StreamFailed(*reason)),
            ServerEvent::ConnectionRefused { reason, .. } => Some(Self::ConnectionRefused(*reason)),
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
    }
    throttle.rest().for_each(|(event, n)| write_one(&event, n));
}

/// Writes a line about `event`, and how many more of its kind it stands for.
fn write_one(event: &ServerEvent, n: u64) {
    let times = Some(n).filter(|n| *n > 1);
    match event {
        ServerEvent::TransferStarted { transfer, protocol, peer, path, size, streams, port, .. } => {
            let path = Name(path);
            info!(%transfer, protocol, %peer, ?path, size, %streams, port, "transfer started");
        }
        ServerEvent::TransferFinished { transfer, peer, path, bytes, elapsed, .. } => {
            let path = Name(path);
            info!(%transfer, %peer, ?path, bytes, seconds = elapsed.as_secs_f64(), "transfer finished");
        }
        ServerEvent::TransferExpired { transfer, missing, bytes, idle, .. } => {
            warn!(%transfer, missing, bytes, "transfer expired: no open stream for {idle:?}");
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
            warn!(times, %transfer, %stream, bytes, %reason, "stream failed");
        }
        ServerEvent::StreamRefused { transfer, peer, reason, .. } => {
            debug!(%transfer, %peer, %reason, "stream refused");
        }
        ServerEvent::ConnectionRefused {
            peer,
            reason: reason @ (StreamRefusal::Tls | StreamRefusal::NoCapacity),
            ..
        } => {
            info!(times, %peer, %reason, "connection refused");
        }
        ServerEvent::ConnectionRefused { peer, reason, .. } => {
            debug!(%peer, %reason, "connection refused");
        }
        ServerEvent::RequestRefused { peer, status, reason, path, .. } => {
            let path = path.as_deref().map(Name);
            info!(times, %peer, status, reason, path = path.map(tracing::field::debug), "request refused");
        }
        ServerEvent::AcceptFailed { reason, .. } => {
            error!(reason, "cannot accept connections; retrying");
        }
        _ => debug!(?event, "event"),
    }
}

/// How many bytes of a name are written: a request may hold 16 KiB, and a log is for people.
const LONGEST_NAME: usize = 256;

/// A name from a peer, in its debug form and not too long.
struct Name<'a>(&'a Path);

impl fmt::Debug for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.as_os_str().as_bytes();
        match bytes.get(..LONGEST_NAME) {
            Some(beginning) if beginning.len() < bytes.len() => {
                write!(f, "{:?}...", OsStr::from_bytes(beginning))
            }
            Some(_) | None => self.0.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_name_is_cut() {
        for (len, expected) in [(1, 3), (256, 258), (257, 261), (16 << 10, 261)] {
            let name = "x".repeat(len);
            assert_eq!(format!("{:?}", Name(Path::new(&name))).len(), expected, "{len}");
        }
        // In the middle of a character.
        let name = "ü".repeat(200).replacen('ü', "x", 1);
        assert!(format!("{:?}", Name(Path::new(&name))).ends_with("\\xC3\"..."));
    }
}
