//! The log on stderr: the server's events as lines for people or for programs.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread;

use dtcore::{ServerEvent, ServerEvents, StreamFailure, StreamRefusal, TransferId};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::args::{Args, LogFormat};
use crate::record::{Level, Record};
use crate::throttle::LogThrottle;

/// Writes a line before the log has its thread.
pub(crate) fn write(args: &Args, record: &Record) {
    write_line(level(args), args.log_format, record);
}

/// Which lines are written.
fn level(args: &Args) -> Level {
    match (args.quiet, args.verbose) {
        (true, _) => Level::Error,
        (false, true) => Level::Debug,
        (false, false) => Level::Info,
    }
}

fn write_line(level: Level, format: LogFormat, record: &Record) {
    if record.level <= level {
        // A full or closed stderr must not end the server.
        let _ = writeln!(io::stderr().lock(), "{}", record.line(format));
    }
}

/// The log of a server.
#[derive(Debug)]
pub(crate) struct Log {
    level: Level,
    format: LogFormat,
    address: SocketAddr,
    root: PathBuf,
}

impl Log {
    /// The log of a server that listens on `address`.
    pub(crate) fn new(args: &Args, address: SocketAddr, root: &Path) -> Self {
        Self { level: level(args), format: args.log_format, address, root: root.to_owned() }
    }

    /// Writes events until the server has ended; then the returned channel ends too. `signal` is what ended it.
    ///
    /// It has its own thread, because a stderr that blocks must not block a thread that serves; and its own runtime, whose
    /// clock continues when the server's has ended.
    pub(crate) fn follow(
        self,
        events: ServerEvents,
        signal: Arc<OnceLock<i32>>,
    ) -> io::Result<oneshot::Receiver<()>> {
        let (over, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let thread = thread::Builder::new().name("dt-log".to_owned());
        thread.spawn(move || {
            let listening = Record::new(Level::Info, "listening").with("address", self.address.to_string());
            let listening = listening.with("root", self.root.to_string_lossy());
            self.write(listening.with("version", env!("CARGO_PKG_VERSION")));
            runtime.block_on(self.write_events(events));
            let name = match signal.get() {
                Some(130) => "SIGINT",
                Some(129) => "SIGHUP",
                Some(_) => "SIGTERM",
                None => "none",
            };
            self.write(Record::new(Level::Info, "stopped").with("signal", name));
            // If it took too long, the program no longer waits.
            let _ = over.send(());
        })?;
        Ok(ended)
    }

    async fn write_events(&self, mut events: ServerEvents) {
        let mut missed = 0;
        let mut throttle = LogThrottle::new();
        loop {
            let next = match throttle.due(Instant::now()) {
                Some(due) => timeout_at(due, events.next()).await,
                None => Ok(events.next().await),
            };
            if events.missed() > missed {
                self.write(Record::new(Level::Warn, "events_lost").with("lost", events.missed() - missed));
                missed = events.missed();
            }
            match next {
                Ok(Some(event)) => match Kind::of(&event) {
                    Some(kind) if self.level < Level::Debug => {
                        throttle.add(kind.bounded(throttle.len()), event);
                    }
                    Some(_) | None => self.write(record(&event, 1)),
                },
                Ok(None) => break,
                // A line is due.
                Err(_) => {}
            }
            throttle.take(Instant::now()).for_each(|(event, n)| self.write(record(&event, n)));
        }
        throttle.rest().for_each(|(event, n)| self.write(record(&event, n)));
    }

    #[expect(clippy::needless_pass_by_value, reason = "a record is made to be written")]
    fn write(&self, record: Record) {
        write_line(self.level, self.format, &record);
    }
}

/// What is summed up together: a client that is refused can retry at once, any number of times.
#[derive(PartialEq, Eq, Debug)]
struct Kind {
    what: What,
    /// So that a program that bans addresses finds every one of them.
    peer: Option<IpAddr>,
    path: Option<PathBuf>,
}

#[derive(PartialEq, Eq, Debug)]
enum What {
    /// By the status of the answer.
    RequestRefused(u16),
    ConnectionRefused(StreamRefusal),
    StreamFailed(StreamFailure, TransferId),
}

/// How many sums name a path, and how many a peer at least. Beyond them only the kind counts: a flood of names from a flood of
/// addresses must not fill the disk.
const MAX_PATHS: usize = 64;
const MAX_PEERS: usize = 512;

impl Kind {
    /// The kind of `event`, if it is summed up.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the number of transfers bounds all others")]
    fn of(event: &ServerEvent) -> Option<Self> {
        let of_peer = |what, peer: &SocketAddr, path: &Option<PathBuf>| {
            Some(Self { what, peer: Some(peer.ip().to_canonical()), path: path.clone() })
        };
        match event {
            ServerEvent::RequestRefused { status, peer, path, .. } => {
                of_peer(What::RequestRefused(*status), peer, path)
            }
            ServerEvent::ConnectionRefused { reason, peer, .. } => {
                of_peer(What::ConnectionRefused(*reason), peer, &None)
            }
            ServerEvent::StreamFailed { reason, transfer, .. } => {
                Some(Self { what: What::StreamFailed(*reason, *transfer), peer: None, path: None })
            }
            _ => None,
        }
    }

    /// A wider kind if there are `n` already.
    fn bounded(mut self, n: usize) -> Self {
        self.path = self.path.filter(|_| n < MAX_PATHS);
        self.peer = self.peer.filter(|_| n < MAX_PEERS);
        self
    }
}

/// The line about `event`, which stands for `n` of its kind.
fn record(event: &ServerEvent, n: u64) -> Record {
    use Level::{Debug, Error, Info, Warn};
    let record = match event {
        ServerEvent::TransferStarted { transfer, protocol, peer, path, size, streams, port, .. } => {
            let record = Record::new(Info, "transfer_started").with("transfer", transfer.value());
            let record = record.with("protocol", *protocol).peer(*peer).path(path).with("size", *size);
            record.with("streams", streams.value()).with("port", *port)
        }
        ServerEvent::TransferFinished { transfer, peer, path, size, bytes, elapsed, .. } => {
            let record = Record::new(Info, "transfer_finished").with("transfer", transfer.value());
            record
                .peer(*peer)
                .path(path)
                .with("size", *size)
                .amount(*bytes, *elapsed)
                .with("outcome", "finished")
        }
        ServerEvent::TransferExpired { transfer, peer, path, missing, bytes, idle, elapsed, .. } => {
            let record = Record::new(Warn, "transfer_expired").with("transfer", transfer.value());
            let record = record.peer(*peer).path(path).amount(*bytes, *elapsed).with("outcome", "expired");
            record.with("missing", *missing).with("idle_seconds", idle.as_secs())
        }
        ServerEvent::TransferFailed { transfer, peer, path, bytes, elapsed, reason, .. } => {
            let record = Record::new(Warn, "transfer_failed").with("transfer", transfer.value());
            let record = record.peer(*peer).path(path).amount(*bytes, *elapsed).with("outcome", "failed");
            record.with("reason", reason.to_string())
        }
        ServerEvent::StreamOpened { transfer, stream, peer, .. } => {
            let record = Record::new(Debug, "stream_opened").with("transfer", transfer.value());
            record.with("stream", stream.byte()).peer(*peer)
        }
        ServerEvent::StreamFinished { transfer, stream, bytes, .. } => {
            let record = Record::new(Debug, "stream_finished").with("transfer", transfer.value());
            record.with("stream", stream.byte()).with("bytes", *bytes)
        }
        ServerEvent::StreamFailed { transfer, stream, bytes, reason, .. } => {
            let record = Record::new(Warn, "stream_failed").with("transfer", transfer.value());
            record.with("stream", stream.byte()).with("bytes", *bytes).with("reason", reason.to_string())
        }
        ServerEvent::StreamRefused { transfer, peer, reason, .. } => {
            let record = Record::new(Debug, "stream_refused").with("transfer", transfer.value());
            record.peer(*peer).with("reason", reason.to_string())
        }
        ServerEvent::ConnectionRefused { peer, reason, .. } => {
            let level = match reason {
                StreamRefusal::Tls | StreamRefusal::NoCapacity => Info,
                _ => Debug,
            };
            Record::new(level, "connection_refused").peer(*peer).with("reason", reason.to_string())
        }
        ServerEvent::RequestRefused { peer, status, reason, path, .. } => {
            let record = Record::new(Info, "request_refused").peer(*peer).with("status", *status);
            let record = record.with("reason", reason.as_str());
            match path {
                Some(path) => record.path(path),
                None => record,
            }
        }
        ServerEvent::AcceptFailed { reason, .. } => {
            Record::new(Error, "accept_failed").with("reason", reason.as_str())
        }
        _ => Record::new(Debug, "other"),
    };
    if n > 1 { record.with("times", n) } else { record }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_bounded() {
        let kind = || Kind {
            what: What::RequestRefused(404),
            peer: Some(IpAddr::from([10, 0, 0, 1])),
            path: Some(PathBuf::from("f")),
        };
        let kept = |n| {
            let kind = kind().bounded(n);
            (kind.peer.is_some(), kind.path.is_some())
        };
        assert_eq!(kept(0), (true, true));
        assert_eq!(kept(MAX_PATHS), (true, false));
        assert_eq!(kept(MAX_PEERS), (false, false));
    }
}
