//! The follower: a thread that reads the received bytes in file order, right behind the streams.
//!
//! MD5 is serial and as slow as a fast link, so it must run beside the transfer. The follower digests what has become
//! contiguous with the file's beginning, and on the way does all else that wants the bytes in order: it writes them
//! to a pipe, or moves those that were received elsewhere, because their place was not known yet, to where they belong.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use tokio::sync::{Notify, oneshot};

use crate::client::destination::Sink;
use crate::digest::{FileDigests, FileHasher};
use crate::error::TransferError;
use crate::manifest::ByteRange;
use crate::sink::{Store, write};

/// What the follower does with the bytes besides digesting them.
#[derive(Debug)]
pub(crate) struct Duties {
    /// Where the bytes belong; segments of another store are copied there.
    pub(crate) home: Option<Arc<dyn Store>>,
    /// Where they are written in order.
    pub(crate) sink: Option<Sink>,
    /// The file that errors name.
    pub(crate) path: PathBuf,
    /// What digests them.
    pub(crate) hasher: FileHasher,
}

/// A handle on the follower's thread; dropping it makes the thread stop at its next look.
#[derive(Debug)]
pub(crate) struct InOrderReader {
    shared: Arc<Shared>,
}

/// What becomes of the follower's work.
#[derive(Debug)]
pub(crate) struct Outcome(oneshot::Receiver<Result<FileDigests, TransferError>>);

impl Outcome {
    /// The digests once the follower was closed and is through, or its error at any time.
    ///
    /// # Cancel safety
    /// Cancel safe, until it has returned once.
    pub(crate) async fn wait(&mut self) -> Result<FileDigests, TransferError> {
        let died = |_| TransferError::System {
            action: "digest the file",
            source: io::Error::other("the thread died"),
        };
        (&mut self.0).await.map_err(died)?
    }
}

impl InOrderReader {
    /// Starts the thread.
    pub(crate) fn spawn(duties: Duties) -> Result<(Self, Outcome), TransferError> {
        let shared = Arc::new(Shared::default());
        let (sender, outcome) = oneshot::channel();
        let mut work = Work { shared: Arc::clone(&shared), duties, position: 0 };
        thread::Builder::new()
            .name("dt-digest".to_owned())
            .spawn(move || {
                let result = work.run();
                // An error only says that the transfer has ended without waiting for the digest.
                let _ = sender.send(result.map(|()| work.duties.hasher.finish()));
            })
            .map_err(|source| TransferError::System { action: "start the digest thread", source })?;
        Ok((Self { shared }, Outcome(outcome)))
    }

    /// Hands over the next bytes in file order; they must have been written.
    pub(crate) fn push(&self, store: &Arc<dyn Store>, range: ByteRange) {
        if range.is_empty() {
            return;
        }
        self.shared.pushed.fetch_add(range.len(), Ordering::Relaxed);
        let mut queue = self.shared.lock();
        // Neighbours are joined, so the queue never holds more than one segment for each stream.
        match queue.segments.back_mut() {
            Some(last) if Arc::ptr_eq(&last.store, store) && last.range.end() == range.start() => {
                last.range = ByteRange::new(last.range.start(), range.end());
            }
            _ => queue.segments.push_back(Segment { store: Arc::clone(store), range }),
        }
        drop(queue);
        self.shared.changed.notify_one();
    }

    /// How many bytes have been digested.
    pub(crate) fn position(&self) -> u64 {
        self.shared.position.load(Ordering::Relaxed)
    }

    /// How many bytes a second are digested while there are some; 0 before that is known.
    pub(crate) fn speed(&self) -> u64 {
        let busy = u128::from(self.shared.busy_nanos.load(Ordering::Relaxed));
        let speed = u128::from(self.position()) * 1_000_000_000 / busy.max(1);
        if busy == 0 { 0 } else { u64::try_from(speed).unwrap_or(u64::MAX) }
    }

    /// Whether more bytes wait to be digested than it is of use to have ready.
    pub(crate) fn is_behind(&self) -> bool {
        self.shared.backlog() > AHEAD
    }

    /// Waits until the follower has gone on since this was last waited for.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn moved(&self) {
        self.shared.progressed.notified().await;
    }

    /// Waits until the follower is not far behind any more.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn caught_up(&self) {
        while self.shared.backlog() > AHEAD / 2 {
            self.shared.progressed.notified().await;
        }
    }

    /// Says that no more bytes will come, and lets the outcome be awaited.
    pub(crate) fn close(&self) {
        self.shared.lock().state = State::Closed;
        self.shared.changed.notify_one();
    }
}

impl Drop for InOrderReader {
    fn drop(&mut self) {
        self.shared.lock().state = State::Abandoned;
        self.shared.changed.notify_one();
    }
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    /// How many bytes were handed over, and how many of them were digested.
    pushed: AtomicU64,
    position: AtomicU64,
    /// How long the follower has worked, in nanoseconds.
    busy_nanos: AtomicU64,
    progressed: Notify,
}

impl Shared {
    fn backlog(&self) -> u64 {
        self.pushed.load(Ordering::Relaxed).saturating_sub(self.position.load(Ordering::Relaxed))
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Every change to the queue is a single step, so a poisoned lock holds a whole queue.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct Queue {
    segments: VecDeque<Segment>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum State {
    #[default]
    Open,
    Closed,
    Abandoned,
}

#[derive(Debug)]
struct Segment {
    store: Arc<dyn Store>,
    range: ByteRange,
}

/// How far the streams may be ahead of the digest, in bytes: a twelfth of a second of its work.
///
/// Without a bound the streams take half of two cores from the digest until all is received, and the other half of the
/// file is digested alone. With it and the pace, 1 GiB took 1.5 s instead of 1.8 s (docs/benchmarking.md).
const AHEAD: u64 = 64 << 20;

/// The most bytes taken from the queue at once; how far the position moves between two looks.
const PIECE: u64 = 4 << 20;

struct Work {
    shared: Arc<Shared>,
    duties: Duties,
    position: u64,
}

impl Work {
    fn run(&mut self) -> Result<(), TransferError> {
        let mut writer = match self.duties.sink.take() {
            None => None,
            Some(sink) => Some(
                sink.open(|| self.shared.lock().state == State::Abandoned)
                    .map_err(|error| self.local("open", error))?,
            ),
        };
        while let Some(segment) = self.next() {
            let begun = Instant::now();
            self.follow(&segment, &mut writer)?;
            let busy = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.shared.busy_nanos.fetch_add(busy, Ordering::Relaxed);
            self.shared.progressed.notify_one();
        }
        match writer {
            Some(mut writer) => writer.flush().map_err(|error| self.local("write to", error)),
            None => Ok(()),
        }
    }

    /// Waits for the next piece; `None` when there will be none.
    ///
    /// The wait is bounded by the handle: dropping it wakes the thread.
    fn next(&self) -> Option<Segment> {
        let mut queue = self.shared.lock();
        loop {
            if queue.state == State::Abandoned {
                return None;
            }
            if let Some(first) = queue.segments.front_mut() {
                let piece = ByteRange::with_len(first.range.start(), first.range.len().min(PIECE));
                first.range = ByteRange::new(piece.end(), first.range.end());
                let store = Arc::clone(&first.store);
                if first.range.is_empty() {
                    queue.segments.pop_front();
                }
                return Some(Segment { store, range: piece });
            }
            if queue.state == State::Closed {
                return None;
            }
            queue = self.shared.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn follow(
        &mut self,
        segment: &Segment,
        writer: &mut Option<Box<dyn Write + Send>>,
    ) -> Result<(), TransferError> {
        let home = self.duties.home.clone().filter(|home| !Arc::ptr_eq(home, &segment.store));
        // Which of the three may fail is not visible in an I/O error, so the visitor says it.
        let mut failed = "read back";
        let mut position = self.position;
        let hasher = &mut self.duties.hasher;
        let mut visit = |bytes: &[u8]| {
            hasher.update(bytes);
            failed = "write";
            if let Some(home) = &home {
                write(&**home, position, bytes)?;
            }
            if let Some(writer) = writer.as_mut() {
                writer.write_all(bytes)?;
            }
            failed = "read back";
            position = position.saturating_add(bytes.len().try_into().unwrap_or(u64::MAX));
            self.shared.position.store(position, Ordering::Relaxed);
            Ok(())
        };
        let result = segment.store.read(segment.range, &mut visit);
        segment.store.forget(segment.range.end());
        self.position = position;
        result.map_err(|error| self.local(failed, error))
    }

    fn local(&self, action: &'static str, error: io::Error) -> TransferError {
        let path: &Path = &self.duties.path;
        // How much was to be stored, it does not know: the position is how far it got.
        TransferError::local(action, path, 0, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Md5Digest;
    use crate::sink::{Engine, open};

    fn filled(bytes: &[u8]) -> Arc<dyn Store> {
        let store = open(&tempfile::tempfile().unwrap(), Engine::Write, 1 << 20).unwrap();
        write(&*store, 0, bytes).unwrap();
        store
    }

    fn range(start: u64, end: u64) -> ByteRange {
        ByteRange::new(start, end)
    }

    #[tokio::test]
    async fn bytes_are_digested_moved_and_written_in_file_order() {
        let written = Arc::new(Mutex::new(Vec::new()));
        let home = filled(b"abc");
        let sink = Some(Sink::Writer(Box::new(Recorder(Arc::clone(&written)))));
        let hasher = FileHasher::default().with_md5();
        let duties = Duties { home: Some(Arc::clone(&home)), sink, path: PathBuf::new(), hasher };
        let (follower, mut outcome) = InOrderReader::spawn(duties).unwrap();
        follower.push(&home, range(0, 2));
        follower.push(&home, range(2, 3));
        follower.push(&filled(b"_defg"), range(1, 5));
        follower.close();
        assert_eq!(outcome.wait().await.unwrap().md5, Some(Md5Digest::of(b"abcdefg")));
        assert_eq!(follower.position(), 7);
        assert_eq!(*written.lock().unwrap(), b"abcdefg");
        let mut moved = Vec::new();
        let mut keep = |bytes: &[u8]| moved.write_all(bytes);
        home.read(range(0, 7), &mut keep).unwrap();
        assert_eq!(moved, b"abcdefg");
    }

    #[tokio::test]
    async fn a_failing_sink_ends_the_transfer_before_it_is_closed() {
        let sink = Some(Sink::Writer(Box::new(Broken)));
        let duties = Duties { home: None, sink, path: PathBuf::from("pipe"), hasher: FileHasher::default() };
        let (follower, mut outcome) = InOrderReader::spawn(duties).unwrap();
        follower.push(&filled(b"abc"), range(0, 3));
        let error = outcome.wait().await.unwrap_err();
        assert_eq!(error.to_string(), "cannot write pipe");
    }

    #[tokio::test]
    async fn a_full_sink_is_not_said_to_need_what_it_took() {
        let sink = Some(Sink::Writer(Box::new(Filled { takes: 3 })));
        let duties = Duties { home: None, sink, path: PathBuf::from("pipe"), hasher: FileHasher::default() };
        let (follower, mut outcome) = InOrderReader::spawn(duties).unwrap();
        let store = filled(b"abcdef");
        follower.push(&store, range(0, 3));
        while follower.position() < 3 {
            follower.moved().await;
        }
        follower.push(&store, range(3, 6));
        let error = outcome.wait().await.unwrap_err();
        assert_eq!(error.to_string(), "no space left for pipe");
    }

    struct Recorder(Arc<Mutex<Vec<u8>>>);

    impl Write for Recorder {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Broken;

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Filled {
        takes: usize,
    }

    impl Write for Filled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.takes == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let n = bytes.len().min(self.takes);
            self.takes -= n;
            Ok(n)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
