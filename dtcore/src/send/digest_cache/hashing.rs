//! Hashes one file, and tells whether its digest can be trusted to last.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio_util::sync::CancellationToken;

use super::{BlockDigests, DigestError, Object, ObjectIdentity};
use crate::backend::read_through;
use crate::digest::{Blake3Digest, Md5Digest, Md5Hasher, RangeDigest, RangeHasher};
use crate::manifest::{BlockId, ByteRange, Manifest};

/// How long a file must have been left alone before what is read of it is remembered.
///
/// Two writes within one tick of the file system's clock leave the same change time, so a file changed this recently could
/// change again without its identity showing it. The kernel's clock ticks every 10 ms at most (`CONFIG_HZ=100`), but times
/// are kept in seconds by ext4 with inodes of 128 bytes and by some NFS servers, in 2 s by FAT.
pub(crate) const MIN_AGE: Duration = Duration::from_millis(2100);

/// How many blocks are read in one go, and remembered when they are through.
const RUN: usize = 256;

/// A digest, and how long it may be remembered.
pub(crate) struct Hashed<D> {
    pub(crate) digest: D,
    pub(crate) lasting: Lasting,
}

/// Whether the identity that was hashed can be trusted to stand for this content only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lasting {
    Yes,
    No,
}

/// How a reading is watched and stopped.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) cancel: CancellationToken,
    /// The bytes of this reading.
    pub(crate) hashed: Arc<AtomicU64>,
    /// The bytes of all readings.
    pub(crate) bytes_hashed: Arc<AtomicU64>,
    /// How long the file must have been left alone before.
    pub(crate) min_age: Duration,
}

impl Reading {
    /// Counts what was hashed, and says whether to go on.
    fn count(&self, bytes: &[u8]) -> ControlFlow<()> {
        let n = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.hashed.fetch_add(n, Ordering::Relaxed);
        self.bytes_hashed.fetch_add(n, Ordering::Relaxed);
        if self.cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Reads the whole file for its MD5; blocks the calling thread.
pub(crate) fn md5(object: &dyn Object, reading: &Reading) -> Result<Hashed<Md5Digest>, DigestError> {
    let begin = SystemTime::now();
    opened_content(object)?;
    let mut hasher = Md5Hasher::default();
    let mut read = 0_u64;
    // Beyond the size too: a file that grew would otherwise pass for the one that was opened.
    let everything = ByteRange::new(0, u64::MAX);
    let visit = |bytes: &[u8]| {
        hasher.update(bytes);
        read = read.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        // A file that grows has changed; following it could go on for ever.
        if read > object.size() { ControlFlow::Break(()) } else { reading.count(bytes) }
    };
    read_through(object, everything, visit).map_err(|error| unreadable(&error))?;
    if reading.cancel.is_cancelled() {
        return Err(DigestError::Cancelled);
    }
    let after = opened_content(object)?;
    if read != object.size() {
        return Err(DigestError::Changed);
    }
    Ok(Hashed { digest: hasher.finish(), lasting: lasting(object, &after, begin, reading.min_age) })
}

/// The file's BLAKE3 hash, if the digests of all its blocks are known.
pub(crate) fn blake3_of_known(
    object: &dyn Object,
    manifest: &Manifest,
    blocks: &BlockDigests,
) -> Option<Blake3Digest> {
    // What is known is known of this version only.
    let now = object.current_identity().ok().filter(|now| *now == object.identity())?;
    let digests: Option<Vec<_>> = manifest.blocks().map(|block| blocks.find(&now, manifest, block)).collect();
    Blake3Digest::of_blocks(manifest, &digests?)
}

/// Reads the blocks that are not known for the file's BLAKE3 hash; blocks the calling thread.
///
/// It holds the digests of all blocks: 8 MiB for a file of 4 TiB.
pub(crate) fn blake3(
    object: &dyn Object,
    manifest: &Manifest,
    blocks: &BlockDigests,
    reading: &Reading,
) -> Result<Hashed<Blake3Digest>, DigestError> {
    let begin = SystemTime::now();
    let mut now = opened_content(object)?;
    let mut digests = Vec::new();
    let mut rest = manifest.blocks().peekable();
    while let Some(first) = rest.next() {
        // What is known is known of this version only.
        let known = |block| (now == object.identity()).then(|| blocks.find(&now, manifest, block)).flatten();
        if let Some(digest) = known(first) {
            digests.push(digest);
            continue;
        }
        let mut run = vec![first];
        while run.len() < RUN
            && let Some(block) = rest.next_if(|block| known(*block).is_none())
        {
            run.push(block);
        }
        let run_begin = SystemTime::now();
        let hashed = hash_run(object, manifest, &run, reading)?;
        now = opened_content(object)?;
        for (block, digest) in run.iter().zip(&hashed) {
            blocks.remember(object, manifest, *block, *digest, &now, run_begin);
        }
        digests.extend(hashed);
    }
    let after = opened_content(object)?;
    let digest = Blake3Digest::of_blocks(manifest, &digests).ok_or(DigestError::Changed)?;
    Ok(Hashed { digest, lasting: lasting(object, &after, begin, reading.min_age) })
}

/// The digests of neighbouring blocks.
fn hash_run(
    object: &dyn Object,
    manifest: &Manifest,
    run: &[BlockId],
    reading: &Reading,
) -> Result<Vec<RangeDigest>, DigestError> {
    let of_run = |block: Option<&BlockId>| block.map(|block| manifest.range(*block)).unwrap_or_default();
    let whole = ByteRange::new(of_run(run.first()).start(), of_run(run.last()).end());
    let mut digests = Vec::with_capacity(run.len());
    let mut hasher: Option<RangeHasher> = None;
    let mut ranges = run.iter().map(|block| manifest.range(*block));
    let mut left = 0_u64;
    let visit = |mut bytes: &[u8]| {
        let flow = reading.count(bytes);
        while !bytes.is_empty() {
            if left == 0 {
                let Some(range) = ranges.next() else { return ControlFlow::Break(()) };
                left = range.len();
                hasher = RangeHasher::new(manifest.size(), range);
            }
            let n = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let (now, later) = bytes.split_at_checked(n).unwrap_or((bytes, &[]));
            let taken = hasher.as_mut().and_then(|hasher| hasher.update(now));
            left = left.saturating_sub(u64::try_from(n).unwrap_or(left));
            bytes = later;
            if left == 0 || taken.is_none() {
                digests.extend(hasher.take().and_then(RangeHasher::finish));
            }
        }
        flow
    };
    read_through(object, whole, visit).map_err(|error| unreadable(&error))?;
    if reading.cancel.is_cancelled() {
        return Err(DigestError::Cancelled);
    }
    // Shorter than when it was opened.
    if digests.len() == run.len() { Ok(digests) } else { Err(DigestError::Changed) }
}

/// A fresh look at the file, which must still have the content that was opened.
fn opened_content(object: &dyn Object) -> Result<ObjectIdentity, DigestError> {
    let now = object.current_identity().map_err(|error| unreadable(&error))?;
    if object.identity().same_content(&now) { Ok(now) } else { Err(DigestError::Changed) }
}

pub(crate) fn unreadable(error: &io::Error) -> DigestError {
    // A file never says that it would block: there was no thread to read it.
    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory) {
        DigestError::Shortage
    } else {
        DigestError::Unreadable
    }
}

/// Whether what was read since `begin` can be remembered, if the file looks like `now` afterwards.
pub(crate) fn lasting(
    object: &dyn Object,
    now: &ObjectIdentity,
    begin: SystemTime,
    min_age: Duration,
) -> Lasting {
    if *now == object.identity() { settled(now, begin, min_age) } else { Lasting::No }
}

/// Whether the file had been left alone for `min_age` when the hash began.
pub(crate) fn settled(identity: &ObjectIdentity, begin: SystemTime, min_age: Duration) -> Lasting {
    let begin = begin.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(min_age);
    match i128::try_from(begin.as_nanos()) {
        Ok(begin) if identity.changed() <= begin => Lasting::Yes,
        _ => Lasting::No,
    }
}
