//! The in-order reader: a thread that reads the received bytes in file order, close after the streams.
//!
//! MD5 is serial and as slow as a fast link, so it must run beside the transfer. The thread digests the bytes that have
//! become contiguous with the beginning of the file, and writes them to a pipe or any other writer, if there is one.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, PoisonError};
use std::thread;

use tokio::sync::{Notify, oneshot};

use crate::digest::{FileDigests, FileHasher};
use crate::failure::Failure;
use crate::manifest::ByteRange;
use crate::sink::{OrderedWriter, Store};
use crate::sync::Lock;

/// What the thread does with the bytes.
#[derive(Debug)]
pub(crate) struct Duties {
    /// The writer that gets them, if there is one.
    pub(crate) writer: Option<OrderedWriter>,
    /// The file that errors name.
    pub(crate) path: PathBuf,
    /// What digests them.
    pub(crate) hasher: FileHasher,
}

/// A handle on the thread; dropping it makes the thread stop after the piece that it works on.
#[derive(Debug)]
pub(crate) struct InOrderReader {
    shared: Arc<ReadQueue>,
}

/// The result of the thread.
#[derive(Debug)]
pub(crate) struct InOrderResult {
    /// Until it was returned.
    result: Option<oneshot::Receiver<Result<FileDigests, Failure>>>,
}

impl InOrderResult {
    /// The digests once the reader was closed and all bytes were read, or its error at any time.
    ///
    /// # Cancel safety
    /// Cancel safe. It returns once, and then waits indefinitely.
    pub(crate) async fn wait(&mut self) -> Result<FileDigests, Failure> {
        let Some(result) = &mut self.result else { return std::future::pending().await };
        let result = result.await;
        self.result = None;
        result.map_err(|_| Failure::thread_died("digest the file"))?
    }

    /// Waits until the thread, which was abandoned, has ended.
    pub(crate) async fn ended(&mut self) {
        if self.result.is_some() {
            // Nobody needs the digests of a part of the file.
            drop(self.wait().await);
        }
    }
}

impl InOrderReader {
    /// Starts the thread.
    pub(crate) fn spawn(duties: Duties) -> Result<(Self, InOrderResult), Failure> {
        let shared = Arc::new(ReadQueue::default());
        let (sender, result) = oneshot::channel();
        let mut work = Work { shared: Arc::clone(&shared), duties };
        thread::Builder::new()
            .name("dt-digest".to_owned())
            .spawn(move || {
                let result = work.run();
                // Fails only if the transfer has ended without waiting for the digests.
                let _ = sender.send(result.map(|()| work.duties.hasher.finish()));
            })
            .map_err(|source| Failure::System { action: "start the digest thread", source })?;
        Ok((Self { shared }, InOrderResult { result: Some(result) }))
    }

    /// Hands over the next bytes in file order; they must be filled in `store`.
    pub(crate) fn push(&self, store: &Arc<dyn Store>, range: ByteRange) {
        if range.is_empty() {
            return;
        }
        let mut queue = self.shared.queue.lock();
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

    /// How many bytes have been digested and written.
    pub(crate) fn position(&self) -> u64 {
        self.shared.position.load(Ordering::Relaxed)
    }

    /// Waits until the position has changed since the last call returned.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn moved(&self) {
        self.shared.moved.notified().await;
    }

    /// Declares that all bytes were pushed: the thread ends when it has read them.
    ///
    /// It is an error of the thread if they are not `size` bytes.
    pub(crate) fn close(&self, size: u64) {
        self.shared.queue.lock().state = ReaderState::Closed { size };
        self.shared.changed.notify_one();
    }

    /// Makes the thread stop after the piece that it works on.
    pub(crate) fn abandon(&self) {
        *self.shared.queue.lock() = Queue { state: ReaderState::Abandoned, ..Queue::default() };
        self.shared.changed.notify_one();
    }
}

impl Drop for InOrderReader {
    fn drop(&mut self) {
        self.abandon();
    }
}

#[derive(Debug, Default)]
struct ReadQueue {
    queue: Lock<Queue>,
    changed: Condvar,
    position: AtomicU64,
    moved: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    segments: VecDeque<Segment>,
    state: ReaderState,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum ReaderState {
    #[default]
    Open,
    Closed {
        size: u64,
    },
    Abandoned,
}

#[derive(Debug)]
struct Segment {
    store: Arc<dyn Store>,
    range: ByteRange,
}

/// The most bytes taken from the queue at once; the thread notices in between that it was abandoned.
const PIECE: u64 = 4 << 20;

struct Work {
    shared: Arc<ReadQueue>,
    duties: Duties,
}

impl Work {
    fn run(&mut self) -> Result<(), Failure> {
        let is_abandoned = || self.shared.queue.lock().state == ReaderState::Abandoned;
        let writer = self.duties.writer.take().map(|writer| writer.opened(is_abandoned)).transpose();
        let mut writer = writer.map_err(|error| self.local("open", error))?;
        while let Some(segment) = self.next() {
            self.read(&segment, &mut writer)?;
            self.shared.moved.notify_one();
        }
        let state = self.shared.queue.lock().state;
        if matches!(state, ReaderState::Closed { size } if size != self.shared.position.load(Ordering::Relaxed))
        {
            return Err(self.local("write to", io::ErrorKind::UnexpectedEof.into()));
        }
        writer.map_or(Ok(()), |mut writer| writer.flush()).map_err(|error| self.local("write to", error))
    }

    /// Waits for the next piece; `None` when the work is done or abandoned.
    ///
    /// The wait is bounded by the handle: dropping it wakes the thread.
    fn next(&self) -> Option<Segment> {
        let mut queue = self.shared.queue.lock();
        loop {
            if queue.state == ReaderState::Abandoned {
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
            if matches!(queue.state, ReaderState::Closed { .. }) {
                return None;
            }
            queue = self.shared.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn read(&mut self, segment: &Segment, writer: &mut Option<Box<dyn Write + Send>>) -> Result<(), Failure> {
        // An I/O error does not show which side failed, so the visitor records it.
        let mut failed = "read back";
        let result = segment.store.read(segment.range, &mut |bytes| {
            self.duties.hasher.update(bytes);
            if let Some(writer) = writer {
                failed = "write";
                writer.write_all(bytes)?;
                failed = "read back";
            }
            Ok(())
        });
        result.map_err(|error| self.local(failed, error))?;
        // In this order: a task that sees the position may use the memory of the bytes before it.
        segment.store.forget(segment.range.end());
        self.shared.position.fetch_add(segment.range.len(), Ordering::Relaxed);
        Ok(())
    }

    fn local(&self, action: &'static str, error: io::Error) -> Failure {
        // The size of the file is not known here: the position is only how far the thread got.
        Failure::local(action, &self.duties.path, 0, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Md5Digest;
    use crate::sink::{PwriteStore, write};

    fn filled(bytes: &[u8]) -> Arc<dyn Store> {
        let store = PwriteStore::of_unknown_size(tempfile::tempfile().unwrap());
        write(&store, 0, bytes).unwrap();
        Arc::new(store)
    }

    /// A reader with a writer that takes so many bytes, and what was written.
    fn reader_with(capacity: usize) -> (InOrderReader, InOrderResult, Arc<Lock<Vec<u8>>>) {
        let written = Arc::<Lock<Vec<u8>>>::default();
        let recorder = Recorder { written: Arc::clone(&written), capacity };
        let writer = Some(OrderedWriter::open(recorder));
        let (path, hasher) = (PathBuf::from("pipe"), FileHasher::default().with_md5());
        let (reader, result) = InOrderReader::spawn(Duties { writer, path, hasher }).unwrap();
        (reader, result, written)
    }

    #[tokio::test]
    async fn bytes_are_digested_and_written_in_file_order() {
        let (reader, mut result, written) = reader_with(100);
        let first = filled(b"abc");
        reader.push(&first, ByteRange::new(0, 2));
        reader.push(&first, ByteRange::new(2, 3));
        reader.push(&filled(b"_defg"), ByteRange::new(1, 5));
        reader.close(7);
        assert_eq!(result.wait().await.unwrap().md5, Some(Md5Digest::of(b"abcdefg")));
        assert_eq!(reader.position(), 7);
        assert_eq!(*written.lock(), b"abcdefg");
    }

    #[tokio::test]
    async fn store_is_free_when_an_abandoned_reader_has_ended() {
        let (reader, mut result, _) = reader_with(8 << 20);
        let store = filled(&vec![1; 8 << 20]);
        reader.push(&store, ByteRange::new(0, 8 << 20));
        reader.abandon();
        result.ended().await;
        drop(reader);
        assert_eq!(Arc::strong_count(&store), 1);
        result.ended().await;
    }

    #[tokio::test]
    async fn reader_that_is_closed_early_fails() {
        let (reader, mut result, _) = reader_with(100);
        reader.push(&filled(b"abc"), ByteRange::new(0, 3));
        reader.close(4);
        assert_eq!(result.wait().await.unwrap_err().to_string(), "cannot write to pipe");
    }

    #[tokio::test]
    async fn missing_bytes_are_an_error() {
        let (reader, mut result, _) = reader_with(100);
        reader.push(&filled(b"abc"), ByteRange::new(0, 4));
        assert_eq!(result.wait().await.unwrap_err().to_string(), "cannot read back pipe");
    }

    #[tokio::test]
    async fn failing_writer_is_reported_before_the_reader_is_closed() {
        let (reader, mut result, _) = reader_with(3);
        let store = filled(b"abcdef");
        reader.push(&store, ByteRange::new(0, 3));
        while reader.position() < 3 {
            reader.moved().await;
        }
        reader.push(&store, ByteRange::new(3, 6));
        // How far it got is no measure of the room that is needed.
        assert_eq!(result.wait().await.unwrap_err().to_string(), "no space left for pipe");
    }

    struct Recorder {
        written: Arc<Lock<Vec<u8>>>,
        capacity: usize,
    }

    impl Write for Recorder {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut written = self.written.lock();
            if written.len() == self.capacity {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let n = bytes.len().min(self.capacity - written.len());
            written.extend_from_slice(&bytes[..n]);
            Ok(n)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
