//! The caches against real files.

use super::*;
use crate::backend::fs::SourceFile;
use crate::digest::{RangeDigest, RangeHasher};
use crate::manifest::BlockSize;
use crate::send::digest_cache::single_flight::{CAPACITY, FlightTable, ONE_LINE};
use crate::send::digest_cache::stability::is_settled;
use std::fs::File;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Enough for the clocks of the file systems that tests run on, and short.
const SOON: Duration = Duration::from_millis(20);

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const OTHER: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

struct Fixture {
    folder: tempfile::TempDir,
    cache: Arc<DigestCache>,
    bytes_hashed: Arc<AtomicU64>,
}

impl Fixture {
    fn new() -> Self {
        // On any machine three permits, two for one client.
        let bytes_hashed = Arc::default();
        let cache = DigestCache::with_cores(3, SOON, &TaskTracker::new(), Arc::clone(&bytes_hashed));
        Self { folder: tempfile::tempdir().unwrap(), cache: Arc::new(cache), bytes_hashed }
    }

    /// Opens a file when it has been unchanged for long enough.
    async fn settled(&self, content: &[u8]) -> Arc<dyn Object> {
        let path = self.folder.path().join("f");
        std::fs::write(&path, content).unwrap();
        let object = open(&path);
        while !is_settled(&object.identity(), SystemTime::now(), SOON) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        object
    }

    async fn digest(&self, object: &Arc<dyn Object>) -> Result<Md5Digest, DigestError> {
        self.cache.md5(object, CLIENT).await
    }

    fn bytes_hashed(&self) -> u64 {
        self.bytes_hashed.load(Ordering::Relaxed)
    }
}

fn open(path: &Path) -> Arc<dyn Object> {
    Arc::new(SourceFile::new(File::open(path).unwrap()).unwrap())
}

#[tokio::test]
async fn unchanged_file_is_read_once() {
    let fixture = Fixture::new();
    let object = fixture.settled(b"abc").await;
    for _ in 0..3 {
        assert_eq!(fixture.digest(&object).await, Ok(Md5Digest::of(b"abc")));
    }
    assert_eq!(fixture.bytes_hashed(), 3);
    let changed = fixture.settled(b"abcd").await;
    assert_eq!(fixture.digest(&changed).await, Ok(Md5Digest::of(b"abcd")));
    assert_eq!(fixture.bytes_hashed(), 7);
}

#[tokio::test]
async fn concurrent_requests_share_one_reading() {
    let fixture = Fixture::new();
    let content = vec![7; 1 << 20];
    let object = fixture.settled(&content).await;
    let requests = (0..50).map(|_| fixture.digest(&object));
    let digests = futures_util::future::join_all(requests).await;
    assert!(digests.iter().all(|digest| *digest == Ok(Md5Digest::of(&content))));
    assert_eq!(fixture.bytes_hashed(), 1 << 20);
}

#[tokio::test]
async fn change_since_opening_is_an_error_and_not_remembered() {
    let fixture = Fixture::new();
    let object = fixture.settled(b"abc").await;
    std::fs::write(fixture.folder.path().join("f"), b"abcdef").unwrap();
    for _ in 0..2 {
        assert_eq!(fixture.digest(&object).await, Err(DigestError::Changed));
    }
}

#[tokio::test]
async fn recently_changed_file_is_not_remembered() {
    let fixture = Fixture::new();
    let object = fixture.settled(b"abc").await;
    let nanoseconds = u64::try_from(object.identity().changed()).unwrap();
    let changed = UNIX_EPOCH + Duration::from_nanos(nanoseconds);
    let is_settled = |after| is_settled(&object.identity(), changed + after, MIN_AGE);
    // Times stored in steps of two seconds stand still for that long.
    for (after, expected) in [
        (Duration::ZERO, false),
        (Duration::from_secs(2), false),
        (MIN_AGE.checked_sub(Duration::from_nanos(1)).unwrap(), false),
        (MIN_AGE, true),
    ] {
        assert_eq!(is_settled(after), expected, "{after:?}");
    }
}

#[tokio::test]
async fn cancelling_all_waits_ends_the_work() {
    let fixture = Fixture::new();
    let object = fixture.settled(b"abc").await;
    let held = [
        fixture.cache.md5.queue.next(CLIENT, ONE_LINE).await,
        fixture.cache.md5.queue.next(CLIENT, ONE_LINE).await,
    ];
    {
        let waiting = fixture.digest(&object);
        tokio::pin!(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
    }
    // The job gets no permit, so only its cancellation ends it.
    fixture.cache.md5.tracker.close();
    tokio::time::timeout(Duration::from_secs(10), fixture.cache.md5.tracker.wait()).await.unwrap();
    drop(held);
    assert_eq!(fixture.bytes_hashed(), 0);
    assert_eq!(fixture.digest(&object).await, Ok(Md5Digest::of(b"abc")));
}

#[tokio::test]
async fn client_does_not_wait_in_the_line_of_another_that_requested_the_same_file() {
    let fixture = Fixture::new();
    let object = fixture.settled(b"abc").await;
    let _held = [
        fixture.cache.md5.queue.next(CLIENT, ONE_LINE).await,
        fixture.cache.md5.queue.next(CLIENT, ONE_LINE).await,
    ];
    let waiting = fixture.digest(&object);
    tokio::pin!(waiting);
    assert!(futures_util::poll!(&mut waiting).is_pending());
    assert_eq!(fixture.cache.md5(&object, OTHER).await, Ok(Md5Digest::of(b"abc")));
    assert_eq!(waiting.await, Ok(Md5Digest::of(b"abc")));
    assert_eq!(fixture.bytes_hashed(), 3);
    // The permit was returned.
    let _permit = fixture.cache.md5.queue.next(OTHER, ONE_LINE).await;
}

#[test]
fn least_recently_used_digest_is_evicted() {
    let file = |n: u32| {
        let file = tempfile::tempfile().unwrap();
        file.set_len(u64::from(n)).unwrap();
        SourceFile::new(file).unwrap().identity()
    };
    let mut state = FlightTable::default();
    let first = file(1);
    for n in 1..=4097 {
        state.lookups += 1;
        let identity = if n == 1 { first } else { file(n) };
        state.remember(identity, Md5Digest::of(b""));
    }
    assert_eq!(state.known.len(), CAPACITY);
    assert!(!state.known.contains_key(&first));
}

#[tokio::test]
async fn blake3_reads_only_unknown_blocks() {
    let fixture = Fixture::new();
    // More than one run, and a shorter last block.
    let content: Vec<u8> = (0..5_000_000_usize).map(|i| u8::try_from(i * 31 % 251).unwrap()).collect();
    let object = fixture.settled(&content).await;
    let manifest = Manifest::new(object.size(), BlockSize::new(BlockSize::MIN).unwrap()).unwrap();
    let identity = object.identity();
    for index in [0, 7, 8, 300] {
        let block = manifest.block(index).unwrap();
        let range = manifest.range(block);
        let mut hasher = RangeHasher::new(manifest.size(), range).unwrap();
        fixture.cache.blocks().hash(&*object, range, &mut hasher).unwrap();
        let digest = hasher.finish().unwrap();
        fixture.cache.blocks().remember(&*object, &manifest, block, digest, &identity, SystemTime::now());
    }
    assert_eq!(fixture.bytes_hashed(), 4 * BlockSize::MIN);
    assert_eq!(fixture.cache.known_blake3(&identity), None);
    let expected = Blake3Digest::of(&content);
    for _ in 0..2 {
        assert_eq!(fixture.cache.blake3(&object, manifest, CLIENT).await, Ok(expected));
        assert_eq!(fixture.bytes_hashed(), 5_000_000);
    }
    assert_eq!(fixture.cache.known_blake3(&identity), Some(expected));
}

#[tokio::test]
async fn blake3_of_known_blocks_needs_no_permit() {
    let fixture = Fixture::new();
    let object = fixture.settled(b"abc").await;
    let manifest = Manifest::new(3, BlockSize::new(BlockSize::MIN).unwrap()).unwrap();
    let (block, digest) =
        (manifest.block(0).unwrap(), RangeDigest(<[u8; 32]>::from(Blake3Digest::of(b"abc"))));
    fixture.cache.blocks().remember(
        &*object,
        &manifest,
        block,
        digest,
        &object.identity(),
        SystemTime::now(),
    );
    let queue = &fixture.cache.blake3.queue;
    let _held = [queue.next(CLIENT, ONE_LINE).await, queue.next(CLIENT, ONE_LINE).await];
    let found =
        tokio::time::timeout(Duration::from_secs(10), fixture.cache.blake3(&object, manifest, CLIENT));
    assert_eq!(found.await.unwrap(), Ok(Blake3Digest::of(b"abc")));
    assert_eq!(fixture.bytes_hashed(), 0);
}

#[tokio::test]
async fn blake3_of_a_changed_file_is_an_error() {
    let fixture = Fixture::new();
    let object = fixture.settled(b"abc").await;
    let manifest = Manifest::new(3, BlockSize::new(BlockSize::MIN).unwrap()).unwrap();
    std::fs::write(fixture.folder.path().join("f"), b"ab").unwrap();
    assert_eq!(fixture.cache.blake3(&object, manifest, CLIENT).await, Err(DigestError::Changed));
}

#[tokio::test]
async fn shortage_and_panic_are_reported_as_such() {
    let fixture = Fixture::new();
    let object = fixture.settled(b"abc").await;
    let md5 = &fixture.cache.md5;
    let short = hashing::unreadable(&rustix::io::Errno::AGAIN.into());
    assert_eq!(short, DigestError::Shortage);
    assert_eq!(md5.digest(&object, CLIENT, move |_, _| Err(short)).await, Err(DigestError::Shortage));
    let panicking = md5.digest(&object, CLIENT, |_, _| panic!("expected by the test"));
    assert_eq!(panicking.await, Err(DigestError::Failed));
}
