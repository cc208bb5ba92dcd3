//! The MD5s of the files that were asked for, so that an unchanged file is read once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::io::Errno;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::SourceFile;
use super::source::FileIdentity;
use crate::integrity::{Md5Digest, Md5Hasher};

/// How many digests are remembered: about half a megabyte.
const CAPACITY: usize = 4096;

/// How much is read at once: 64 to 256 KiB hash alike (0.6 GB/s); this stays in the second-level cache.
const READ: usize = 128 << 10;

/// The kernel's clock for file times stands still for up to 10 ms (`CONFIG_HZ=100`). Two writes within one tick
/// leave the same change time, so a file changed this recently could change again without its identity showing it.
const TICK: Duration = Duration::from_millis(20);

/// Remembers digests by file identity; a file that several ask for at once is read once.
#[derive(Debug)]
pub(crate) struct DigestCache {
    state: Mutex<State>,
    /// Hashing takes a whole core, so there are never more at once than cores.
    jobs: Arc<Semaphore>,
    bytes_hashed: Arc<AtomicU64>,
    tracker: TaskTracker,
}

#[derive(Debug, Default)]
struct State {
    known: HashMap<FileIdentity, Known>,
    flights: HashMap<FileIdentity, Weak<Flight>>,
    /// Counts lookups: the age of an entry is the lookup that last found it.
    lookups: u64,
}

#[derive(Debug)]
struct Known {
    digest: Md5Digest,
    last_used: u64,
}

/// A hash on its way. Each waiter holds it; when the last one lets go, the work is cancelled.
#[derive(Debug)]
struct Flight {
    outcome: watch::Receiver<Option<Result<Md5Digest, DigestError>>>,
    _cancel: DropGuard,
}

/// Why there is no digest.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum DigestError {
    /// The file was written to meanwhile.
    #[error("the file changed while it was read")]
    Changed,
    /// The file could not be read.
    #[error("cannot read the file: {0}")]
    Unreadable(io::ErrorKind),
    /// The server is ending.
    #[error("the server is shutting down")]
    Cancelled,
}

impl DigestCache {
    /// An empty cache; its work runs as tasks of `tracker`, and adds to `bytes_hashed` what it reads.
    pub(crate) fn new(tracker: TaskTracker, bytes_hashed: Arc<AtomicU64>) -> Self {
        let n_cores = std::thread::available_parallelism().map_or(1, usize::from);
        let jobs = Arc::new(Semaphore::new(n_cores));
        Self { state: Mutex::default(), jobs, bytes_hashed, tracker }
    }

    /// The MD5 of `source`, from memory if this version of the file is known.
    ///
    /// # Cancel safety
    /// Dropping the future gives up this caller's interest; the file is read on only while somebody waits.
    pub(crate) async fn digest(self: &Arc<Self>, source: &Arc<SourceFile>) -> Result<Md5Digest, DigestError> {
        let flight = match self.look_up(source.identity()) {
            Found::Known(digest) => return Ok(digest),
            Found::Flight(flight) => flight,
            Found::Begin(flight, job) => {
                self.tracker.spawn(Arc::clone(self).run(Arc::clone(source), job));
                flight
            }
        };
        let mut outcome = flight.outcome.clone();
        match outcome.wait_for(Option::is_some).await {
            Ok(outcome) => (*outcome).clone().unwrap_or(Err(DigestError::Cancelled)),
            Err(_) => Err(DigestError::Cancelled),
        }
    }

    fn look_up(&self, identity: FileIdentity) -> Found {
        let mut state = self.state();
        state.lookups += 1;
        let now = state.lookups;
        if let Some(known) = state.known.get_mut(&identity) {
            known.last_used = now;
            return Found::Known(known.digest);
        }
        if let Some(flight) = state.flights.get(&identity).and_then(Weak::upgrade) {
            return Found::Flight(flight);
        }
        let (sender, outcome) = watch::channel(None);
        let cancel = CancellationToken::new();
        let flight = Arc::new(Flight { outcome, _cancel: cancel.clone().drop_guard() });
        let job = Job { sender, cancel, flight: Arc::downgrade(&flight) };
        state.flights.insert(identity, Weak::clone(&job.flight));
        Found::Begin(flight, job)
    }

    /// Hashes the file and tells everybody who waits.
    async fn run(self: Arc<Self>, source: Arc<SourceFile>, job: Job) {
        let identity = source.identity();
        let outcome = tokio::select! {
            biased;
            () = job.cancel.cancelled() => Err(DigestError::Cancelled),
            outcome = self.hash(source, job.cancel.clone()) => outcome,
        };
        {
            let mut state = self.state();
            // After a cancelled job another may have begun for the same file; its entry is not ours to remove.
            if let Entry::Occupied(entry) = state.flights.entry(identity)
                && Weak::ptr_eq(entry.get(), &job.flight)
            {
                entry.remove();
            }
            if let Ok(Hashed { digest, lasting: Lasting::Yes }) = outcome {
                state.remember(identity, digest);
            }
        }
        job.sender.send_replace(Some(outcome.map(|hashed| hashed.digest)));
    }

    async fn hash(&self, source: Arc<SourceFile>, cancel: CancellationToken) -> Result<Hashed, DigestError> {
        let permit = Arc::clone(&self.jobs).acquire_owned().await;
        let bytes_hashed = Arc::clone(&self.bytes_hashed);
        let work = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            hash_file(&source, &cancel, &bytes_hashed)
        });
        work.await.unwrap_or(Err(DigestError::Cancelled))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change of the state is complete in itself, so a panic elsewhere leaves it sound.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn remember(&mut self, identity: FileIdentity, digest: Md5Digest) {
        if self.known.len() >= CAPACITY {
            let oldest = self.known.iter().min_by_key(|(_, known)| known.last_used);
            if let Some(oldest) = oldest.map(|(identity, _)| *identity) {
                self.known.remove(&oldest);
            }
        }
        self.known.insert(identity, Known { digest, last_used: self.lookups });
    }
}

enum Found {
    Known(Md5Digest),
    Flight(Arc<Flight>),
    Begin(Arc<Flight>, Job),
}

struct Job {
    sender: watch::Sender<Option<Result<Md5Digest, DigestError>>>,
    cancel: CancellationToken,
    flight: Weak<Flight>,
}

struct Hashed {
    digest: Md5Digest,
    lasting: Lasting,
}

/// Whether the identity that was hashed can be trusted to stand for this content only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lasting {
    Yes,
    No,
}

fn hash_file(
    source: &SourceFile,
    cancel: &CancellationToken,
    bytes_hashed: &AtomicU64,
) -> Result<Hashed, DigestError> {
    let unreadable = |error: io::Error| DigestError::Unreadable(error.kind());
    let begin = SystemTime::now();
    let before = source.current_identity().map_err(unreadable)?;
    if !source.same_content(&before) {
        return Err(DigestError::Changed);
    }
    let mut hasher = Md5Hasher::default();
    let mut buffer = vec![0; READ];
    let mut offset = 0;
    while !cancel.is_cancelled() {
        let n = match rustix::io::pread(source, &mut *buffer, offset) {
            Ok(n) => n,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(unreadable(error.into())),
        };
        let Some(bytes) = buffer.get(..n).filter(|bytes| !bytes.is_empty()) else { break };
        hasher.update(bytes);
        let n = u64::try_from(n).unwrap_or(0);
        bytes_hashed.fetch_add(n, Ordering::Relaxed);
        offset += n;
        if offset > source.size() {
            return Err(DigestError::Changed);
        }
    }
    if cancel.is_cancelled() {
        return Err(DigestError::Cancelled);
    }
    let after = source.current_identity().map_err(unreadable)?;
    if !source.same_content(&after) || offset != source.size() {
        return Err(DigestError::Changed);
    }
    let lasting = if after == source.identity() { settled(&after, begin) } else { Lasting::No };
    Ok(Hashed { digest: hasher.finish(), lasting })
}

/// Whether the file had been left alone for a tick of the file clock when the hash began.
fn settled(identity: &FileIdentity, begin: SystemTime) -> Lasting {
    let begin = begin.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(TICK);
    match i128::try_from(begin.as_nanos()) {
        Ok(begin) if identity.changed() <= begin => Lasting::Yes,
        _ => Lasting::No,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::path::Path;

    struct Fixture {
        folder: tempfile::TempDir,
        cache: Arc<DigestCache>,
    }

    impl Fixture {
        fn new() -> Self {
            let cache = DigestCache::new(TaskTracker::new(), Arc::default());
            Self { folder: tempfile::tempdir().unwrap(), cache: Arc::new(cache) }
        }

        /// Opens the file when its times have settled.
        async fn settled(&self, content: &[u8]) -> Arc<SourceFile> {
            let path = self.folder.path().join("f");
            std::fs::write(&path, content).unwrap();
            let source = open(&path);
            while settled(&source.identity(), SystemTime::now()) == Lasting::No {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            source
        }

        fn bytes_hashed(&self) -> u64 {
            self.cache.bytes_hashed.load(Ordering::Relaxed)
        }
    }

    fn open(path: &Path) -> Arc<SourceFile> {
        Arc::new(SourceFile::new(File::open(path).unwrap()).unwrap())
    }

    #[tokio::test]
    async fn an_unchanged_file_is_read_once() {
        let fixture = Fixture::new();
        let source = fixture.settled(b"abc").await;
        for _ in 0..3 {
            assert_eq!(fixture.cache.digest(&source).await, Ok(Md5Digest::of(b"abc")));
        }
        assert_eq!(fixture.bytes_hashed(), 3);
        let changed = fixture.settled(b"abcd").await;
        assert_eq!(fixture.cache.digest(&changed).await, Ok(Md5Digest::of(b"abcd")));
        assert_eq!(fixture.bytes_hashed(), 7);
    }

    #[tokio::test]
    async fn many_who_ask_at_once_share_one_reading() {
        let fixture = Fixture::new();
        let content = vec![7; 1 << 20];
        let source = fixture.settled(&content).await;
        let asking = (0..50).map(|_| fixture.cache.digest(&source));
        let digests = futures_util::future::join_all(asking).await;
        assert!(digests.iter().all(|digest| *digest == Ok(Md5Digest::of(&content))));
        assert_eq!(fixture.bytes_hashed(), 1 << 20);
    }

    #[tokio::test]
    async fn a_change_since_opening_is_an_error_and_not_remembered() {
        let fixture = Fixture::new();
        let source = fixture.settled(b"abc").await;
        std::fs::write(fixture.folder.path().join("f"), b"abcdef").unwrap();
        for _ in 0..2 {
            assert_eq!(fixture.cache.digest(&source).await, Err(DigestError::Changed));
        }
    }

    #[tokio::test]
    async fn a_file_changed_within_the_clock_tick_is_not_remembered() {
        let fixture = Fixture::new();
        let source = fixture.settled(b"abc").await;
        let nanoseconds = u64::try_from(source.identity().changed()).unwrap();
        let changed = UNIX_EPOCH + Duration::from_nanos(nanoseconds);
        assert_eq!(settled(&source.identity(), changed), Lasting::No);
        assert_eq!(settled(&source.identity(), changed + TICK - Duration::from_nanos(1)), Lasting::No);
        assert_eq!(settled(&source.identity(), changed + TICK), Lasting::Yes);
    }

    #[tokio::test]
    async fn nobody_waiting_ends_the_work() {
        let fixture = Fixture::new();
        let source = fixture.settled(b"abc").await;
        let jobs = Arc::clone(&fixture.cache.jobs);
        let n_cores = u32::try_from(jobs.available_permits()).unwrap();
        let all = jobs.acquire_many_owned(n_cores).await.unwrap();
        {
            let waiting = fixture.cache.digest(&source);
            tokio::pin!(waiting);
            assert!(futures_util::poll!(&mut waiting).is_pending());
        }
        // The job can get no core, so only its cancellation lets it end.
        fixture.cache.tracker.close();
        tokio::time::timeout(Duration::from_secs(10), fixture.cache.tracker.wait()).await.unwrap();
        drop(all);
        assert_eq!(fixture.bytes_hashed(), 0);
        assert_eq!(fixture.cache.digest(&source).await, Ok(Md5Digest::of(b"abc")));
    }

    #[test]
    fn the_longest_unused_digest_makes_room() {
        let file = |n: u32| {
            let file = tempfile::tempfile().unwrap();
            file.set_len(u64::from(n)).unwrap();
            SourceFile::new(file).unwrap().identity()
        };
        let mut state = State::default();
        let first = file(1);
        for n in 1..=4097 {
            state.lookups += 1;
            let identity = if n == 1 { first } else { file(n) };
            state.remember(identity, Md5Digest::of(b""));
        }
        assert_eq!(state.known.len(), CAPACITY);
        assert!(!state.known.contains_key(&first));
    }
}
