//! The MD5s of the files that were asked for, so that an unchanged file is read once.

mod hashing;
mod turns;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::SourceFile;
use super::source::FileIdentity;
use crate::integrity::Md5Digest;
use hashing::{Hashed, Lasting, hash_file};
use turns::{Turn, Turns};

/// How many digests are remembered: about half a megabyte.
const CAPACITY: usize = 4096;

/// Remembers digests by file identity; a file that several ask for at once is read once.
#[derive(Debug)]
pub(crate) struct DigestCache {
    state: Mutex<State>,
    /// Hashing takes a whole core, so there are hardly more at once than cores.
    turns: Turns,
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
    progress: watch::Receiver<Progress>,
    /// The job takes the first turn that any of the waiters gets: who asks for a file that somebody else asked for
    /// before does not have to stand in that one's queue.
    turn: mpsc::Sender<Turn>,
    _cancel: DropGuard,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Progress {
    Waiting,
    Running,
    Ended(Result<Md5Digest, DigestError>),
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
        Self { state: Mutex::default(), turns: Turns::new(n_cores), bytes_hashed, tracker }
    }

    /// The MD5 of `source`, from memory if this version of the file is known.
    ///
    /// A file that must be read waits until `asker` has its turn, or somebody else who wants the same file.
    ///
    /// # Cancel safety
    /// Dropping the future gives up this caller's interest; the file is read on only while somebody waits.
    pub(crate) async fn digest(
        self: &Arc<Self>,
        source: &Arc<SourceFile>,
        asker: IpAddr,
    ) -> Result<Md5Digest, DigestError> {
        let flight = match self.look_up(source.identity()) {
            Found::Known(digest) => return Ok(digest),
            Found::Flight(flight) => flight,
            Found::Begin(flight, job) => {
                self.tracker.spawn(Arc::clone(self).run(Arc::clone(source), job));
                flight
            }
        };
        let mut progress = flight.progress.clone();
        tokio::select! {
            biased;
            _ = progress.wait_for(|progress| *progress != Progress::Waiting) => {}
            Some(turn) = self.turns.next(asker) => {
                // The job may have got another turn meanwhile; then this one is free again.
                let _ = flight.turn.try_send(turn);
            }
        }
        match progress.wait_for(|progress| matches!(progress, Progress::Ended(_))).await.as_deref() {
            Ok(Progress::Ended(outcome)) => outcome.clone(),
            Ok(Progress::Waiting | Progress::Running) | Err(_) => Err(DigestError::Cancelled),
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
        let (teller, progress) = watch::channel(Progress::Waiting);
        let (giver, turn) = mpsc::channel(1);
        let cancel = CancellationToken::new();
        let flight = Arc::new(Flight { progress, turn: giver, _cancel: cancel.clone().drop_guard() });
        let job = Job { progress: teller, turn, cancel, flight: Arc::downgrade(&flight) };
        state.flights.insert(identity, Weak::clone(&job.flight));
        Found::Begin(flight, job)
    }

    /// Hashes the file and tells everybody who waits.
    async fn run(self: Arc<Self>, source: Arc<SourceFile>, job: Job) {
        let identity = source.identity();
        let Job { progress, turn, cancel, flight } = job;
        let outcome = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(DigestError::Cancelled),
            outcome = self.hash(source, &progress, turn, cancel.clone()) => outcome,
        };
        {
            let mut state = self.state();
            // After a cancelled job another may have begun for the same file; its entry is not ours to remove.
            if let Entry::Occupied(entry) = state.flights.entry(identity)
                && Weak::ptr_eq(entry.get(), &flight)
            {
                entry.remove();
            }
            if let Ok(Hashed { digest, lasting: Lasting::Yes }) = outcome {
                state.remember(identity, digest);
            }
        }
        progress.send_replace(Progress::Ended(outcome.map(|hashed| hashed.digest)));
    }

    async fn hash(
        &self,
        source: Arc<SourceFile>,
        progress: &watch::Sender<Progress>,
        mut turns: mpsc::Receiver<Turn>,
        cancel: CancellationToken,
    ) -> Result<Hashed, DigestError> {
        let turn = turns.recv().await.ok_or(DigestError::Cancelled)?;
        // One is enough; any other goes to the next job.
        drop(turns);
        progress.send_replace(Progress::Running);
        let bytes_hashed = Arc::clone(&self.bytes_hashed);
        let work = tokio::task::spawn_blocking(move || {
            let _turn = turn;
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
    progress: watch::Sender<Progress>,
    turn: mpsc::Receiver<Turn>,
    cancel: CancellationToken,
    flight: Weak<Flight>,
}

#[cfg(test)]
mod tests {
    use super::hashing::{TICK, settled};
    use super::*;
    use std::fs::File;
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::path::Path;
    use std::sync::atomic::Ordering;
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    const ASKER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const OTHER: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

    struct Fixture {
        folder: tempfile::TempDir,
        cache: Arc<DigestCache>,
    }

    impl Fixture {
        fn new() -> Self {
            let mut cache = DigestCache::new(TaskTracker::new(), Arc::default());
            // Whatever this machine has: three turns, two for one address.
            cache.turns = Turns::new(3);
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

        async fn digest(&self, source: &Arc<SourceFile>) -> Result<Md5Digest, DigestError> {
            self.cache.digest(source, ASKER).await
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
            assert_eq!(fixture.digest(&source).await, Ok(Md5Digest::of(b"abc")));
        }
        assert_eq!(fixture.bytes_hashed(), 3);
        let changed = fixture.settled(b"abcd").await;
        assert_eq!(fixture.digest(&changed).await, Ok(Md5Digest::of(b"abcd")));
        assert_eq!(fixture.bytes_hashed(), 7);
    }

    #[tokio::test]
    async fn many_who_ask_at_once_share_one_reading() {
        let fixture = Fixture::new();
        let content = vec![7; 1 << 20];
        let source = fixture.settled(&content).await;
        let asking = (0..50).map(|_| fixture.digest(&source));
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
            assert_eq!(fixture.digest(&source).await, Err(DigestError::Changed));
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
        let held = [fixture.cache.turns.next(ASKER).await, fixture.cache.turns.next(ASKER).await];
        {
            let waiting = fixture.digest(&source);
            tokio::pin!(waiting);
            assert!(futures_util::poll!(&mut waiting).is_pending());
        }
        // The job can get no turn, so only its cancellation lets it end.
        fixture.cache.tracker.close();
        tokio::time::timeout(Duration::from_secs(10), fixture.cache.tracker.wait()).await.unwrap();
        drop(held);
        assert_eq!(fixture.bytes_hashed(), 0);
        assert_eq!(fixture.digest(&source).await, Ok(Md5Digest::of(b"abc")));
    }

    #[tokio::test]
    async fn who_shares_a_file_does_not_wait_for_another_address() {
        let fixture = Fixture::new();
        let source = fixture.settled(b"abc").await;
        let _held = [fixture.cache.turns.next(ASKER).await, fixture.cache.turns.next(ASKER).await];
        let waiting = fixture.digest(&source);
        tokio::pin!(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        assert_eq!(fixture.cache.digest(&source, OTHER).await, Ok(Md5Digest::of(b"abc")));
        assert_eq!(waiting.await, Ok(Md5Digest::of(b"abc")));
        assert_eq!(fixture.bytes_hashed(), 3);
        // No turn was kept.
        assert!(fixture.cache.turns.next(OTHER).await.is_some());
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
