//! The digests of blocks, remembered for later requests for the same blocks.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::{Object, ObjectIdentity};
use crate::digest::{RangeDigest, RangeHasher};
use crate::manifest::{BlockId, BlockSize, ByteRange, Manifest};
use crate::num::to_usize;
use crate::send::digest_cache::stability::is_stable;
use crate::sync::Lock;
use crate::sys::{PIECE, PieceReader};

/// How many bytes the digests of all objects may take: enough for a million blocks, half a terabyte.
pub(crate) const CAPACITY: usize = 32 << 20;

/// How many consecutive blocks are remembered and forgotten together.
const PAGE: u32 = 256;

/// The size of a page without its digests.
const OVERHEAD: usize = 256;

/// How many buffers are kept for the next use: one for each thread that hashes, seldom more than there are cores.
const BUFFERS: usize = 16;

/// Digests by object identity and block.
#[derive(Debug)]
pub(crate) struct BlockDigests {
    pages: Lock<Pages>,
    buffers: Lock<Vec<Vec<u8>>>,
    bytes_hashed: Arc<AtomicU64>,
    /// How long an object must have been unchanged when it was read.
    min_age: Duration,
}

#[derive(Debug)]
struct Pages {
    by_key: HashMap<Key, Page>,
    bytes: usize,
    capacity: usize,
    /// Counts uses; pages remember the use that last found them.
    uses: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Key {
    identity: ObjectIdentity,
    block: BlockSize,
    page: u32,
}

#[derive(Debug)]
struct Page {
    digests: Box<[Option<RangeDigest>]>,
    last_used: u64,
}

impl Page {
    fn bytes(&self) -> usize {
        OVERHEAD + size_of_val(&*self.digests)
    }
}

impl BlockDigests {
    /// Remembers up to `capacity` bytes of digests; hashed bytes are added to `bytes_hashed`.
    pub(crate) fn new(capacity: usize, min_age: Duration, bytes_hashed: Arc<AtomicU64>) -> Self {
        let pages = Pages { by_key: HashMap::new(), bytes: 0, capacity, uses: 0 };
        Self { pages: Lock::new(pages), buffers: Lock::default(), bytes_hashed, min_age }
    }

    /// The digest of a block of that version of an object, if it is known.
    pub(crate) fn find(
        &self,
        identity: &ObjectIdentity,
        manifest: &Manifest,
        block: BlockId,
    ) -> Option<RangeDigest> {
        let (key, at) = place(identity, manifest, block);
        let mut pages = self.pages.lock();
        pages.uses += 1;
        let now = pages.uses;
        let page = pages.by_key.get_mut(&key)?;
        page.last_used = now;
        page.digests.get(at).copied().flatten()
    }

    /// Remembers the digest of a block that was read since `begin`, if the object has identity `now` afterwards and had been
    /// unchanged for long enough before.
    pub(crate) fn remember(
        &self,
        object: &dyn Object,
        manifest: &Manifest,
        block: BlockId,
        digest: RangeDigest,
        now: &ObjectIdentity,
        begin: SystemTime,
    ) {
        if !is_stable(object, now, begin, self.min_age) {
            return;
        }
        let (key, at) = place(now, manifest, block);
        let len = (manifest.n_blocks() - key.page * PAGE).min(PAGE);
        self.pages.lock().set(key, to_usize(len.into()), at, digest);
    }

    /// Hashes the next bytes of a range, `part`, which should be in memory, as the calling thread reads it.
    ///
    /// # Errors
    /// The system's; [`io::ErrorKind::UnexpectedEof`] if the object ends before the part does.
    pub(crate) fn hash(
        &self,
        object: &dyn Object,
        part: ByteRange,
        hasher: &mut RangeHasher,
    ) -> io::Result<()> {
        let mut buffer = self.buffers.lock().pop().unwrap_or_else(|| vec![0; PIECE]);
        let result = hash_part(object, part, &mut buffer, hasher);
        let mut buffers = self.buffers.lock();
        if buffers.len() < BUFFERS {
            buffers.push(buffer);
        }
        drop(buffers);
        if result.is_ok() {
            self.bytes_hashed.fetch_add(part.len(), Ordering::Relaxed);
        }
        result
    }

    /// Forgets all digests of that version of an object.
    pub(crate) fn forget(&self, identity: &ObjectIdentity) {
        let mut pages = self.pages.lock();
        pages.by_key.retain(|key, _| key.identity != *identity);
        pages.bytes = pages.by_key.values().map(Page::bytes).sum();
    }
}

impl Pages {
    fn set(&mut self, key: Key, len: usize, at: usize, digest: RangeDigest) {
        self.uses += 1;
        let now = self.uses;
        let mut added = 0;
        let page = self.by_key.entry(key).or_insert_with(|| {
            let page = Page { digests: vec![None; len].into_boxed_slice(), last_used: now };
            added = page.bytes();
            page
        });
        page.last_used = now;
        if let Some(slot) = page.digests.get_mut(at) {
            *slot = Some(digest);
        }
        self.bytes += added;
        if self.bytes > self.capacity {
            self.make_room();
        }
    }

    /// Forgets the least recently used quarter of the pages, so that this is seldom needed.
    fn make_room(&mut self) {
        let mut ages: Vec<u64> = self.by_key.values().map(|page| page.last_used).collect();
        let quarter = ages.len() / 4;
        if let Some((_, oldest_kept, _)) = (quarter < ages.len()).then(|| ages.select_nth_unstable(quarter)) {
            let oldest_kept = *oldest_kept;
            self.by_key.retain(|_, page| page.last_used > oldest_kept);
        }
        self.bytes = self.by_key.values().map(Page::bytes).sum();
    }
}

fn place(identity: &ObjectIdentity, manifest: &Manifest, block: BlockId) -> (Key, usize) {
    let key = Key { identity: *identity, block: manifest.block_size(), page: block.value() / PAGE };
    (key, to_usize((block.value() % PAGE).into()))
}

fn hash_part(
    object: &dyn Object,
    part: ByteRange,
    buffer: &mut [u8],
    hasher: &mut RangeHasher,
) -> io::Result<()> {
    let mut pieces = PieceReader::new(part, |buffer, offset| object.read_at(buffer, offset));
    while let piece @ [_, ..] = pieces.next(buffer)? {
        hasher.update(piece).ok_or(io::ErrorKind::InvalidInput)?;
    }
    if pieces.rest().is_empty() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::fs::SourceFile;
    use crate::send::digest_cache::stability::MIN_AGE;
    use std::io::Write;

    const LATER: Duration = Duration::from_secs(3);

    fn object(len: u64) -> SourceFile {
        let file = tempfile::tempfile().unwrap();
        file.set_len(len).unwrap();
        SourceFile::new(file).unwrap()
    }

    fn manifest(len: u64) -> Manifest {
        Manifest::new(len, BlockSize::new(BlockSize::MIN).unwrap()).unwrap()
    }

    #[test]
    fn digests_of_recently_changed_objects_are_not_remembered() {
        let (object, manifest) = (object(40_000), manifest(40_000));
        let (identity, digest) = (object.identity(), RangeDigest([7; 32]));
        let block = manifest.block(2).unwrap();
        let digests = BlockDigests::new(CAPACITY, MIN_AGE, Arc::default());
        let now = SystemTime::now();
        for (begin, found) in [(now - LATER, None), (now, None), (now + LATER, Some(digest))] {
            digests.remember(&object, &manifest, block, digest, &identity, begin);
            assert_eq!(digests.find(&identity, &manifest, block), found);
        }
        assert_eq!(digests.find(&identity, &manifest, manifest.block(1).unwrap()), None);
        let other = Manifest::new(40_000, BlockSize::new(BlockSize::MAX).unwrap()).unwrap();
        assert_eq!(digests.find(&identity, &other, manifest.block(2).unwrap()), None);
    }

    #[test]
    fn least_recently_used_pages_are_evicted() {
        let digests = BlockDigests::new(20 * (OVERHEAD + 33), MIN_AGE, Arc::default());
        let manifest = manifest(1);
        let block = manifest.block(0).unwrap();
        let sources: Vec<_> = (0..50).map(|_| object(1)).collect();
        for object in &sources {
            let (digest, begin) = (RangeDigest([7; 32]), SystemTime::now() + LATER);
            digests.remember(object, &manifest, block, digest, &object.identity(), begin);
            assert!(digests.find(&sources[0].identity(), &manifest, block).is_some(), "it was used last");
            let pages = digests.pages.lock();
            assert!(pages.bytes <= pages.capacity);
            assert_eq!(pages.bytes, pages.by_key.len() * (OVERHEAD + 33));
        }
        assert!(digests.find(&sources[1].identity(), &manifest, block).is_none());
        assert!(digests.find(&sources[49].identity(), &manifest, block).is_some());
    }

    #[test]
    fn parts_are_hashed_and_missing_bytes_are_an_error() {
        let content: Vec<u8> = (0..400_000_usize).map(|i| u8::try_from(i * 31 % 251).unwrap()).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        let object = SourceFile::new(file).unwrap();
        let digests = BlockDigests::new(CAPACITY, MIN_AGE, Arc::default());
        let range = ByteRange::new(262_144, 400_000);
        let mut hasher = RangeHasher::new(400_000, range).unwrap();
        for part in [ByteRange::new(262_144, 262_145), ByteRange::new(262_145, 400_000)] {
            digests.hash(&object, part, &mut hasher).unwrap();
        }
        assert_eq!(hasher.finish(), RangeDigest::of(400_000, range, &content[262_144..]));
        let mut hasher = RangeHasher::new(500_000, ByteRange::new(393_216, 500_000)).unwrap();
        let beyond = digests.hash(&object, ByteRange::new(393_216, 500_000), &mut hasher);
        assert_eq!(beyond.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(digests.bytes_hashed.load(Ordering::Relaxed), 400_000 - 262_144);
    }
}
