//! Hashes one object.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;

use super::{BlockDigests, DigestError, Object, ObjectIdentity};
use crate::backend::read_through;
use crate::digest::{Blake3Digest, Md5Digest, Md5Hasher, RangeDigest, RangeHasher};
use crate::manifest::{BlockId, ByteRange, Manifest};
use crate::num::{to_u64, to_usize};
use crate::send::digest_cache::stability::is_stable;

/// How many blocks are read in one run, and remembered after it.
const RUN: usize = 256;

/// A digest, and whether it may be remembered.
pub(crate) struct Hashed<D> {
    pub(crate) digest: D,
    pub(crate) is_stable: bool,
}

/// How the reading of one object is observed and stopped.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) cancel: CancellationToken,
    /// The bytes hashed of this object.
    pub(crate) hashed: Arc<AtomicU64>,
    /// The bytes hashed of all objects.
    pub(crate) bytes_hashed: Arc<AtomicU64>,
    /// How long the object must have been unchanged before.
    pub(crate) min_age: Duration,
}

impl Reading {
    /// Counts hashed bytes; breaks if the reading is cancelled.
    fn count(&self, bytes: &[u8]) -> ControlFlow<()> {
        let n = to_u64(bytes.len());
        self.hashed.fetch_add(n, Ordering::Relaxed);
        self.bytes_hashed.fetch_add(n, Ordering::Relaxed);
        if self.cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Reads the entire object for its MD5; blocks the calling thread.
pub(crate) fn md5(object: &dyn Object, reading: &Reading) -> Result<Hashed<Md5Digest>, DigestError> {
    let begin = SystemTime::now();
    opened_content(object)?;
    let mut hasher = Md5Hasher::default();
    let mut read = 0_u64;
    // Beyond the size too: otherwise a file that has grown would be taken for the one that was opened.
    let everything = ByteRange::new(0, u64::MAX);
    let visit = |bytes: &[u8]| {
        hasher.update(bytes);
        read += to_u64(bytes.len());
        // A file that grows has changed; following it might never end.
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
    Ok(Hashed { digest: hasher.finish(), is_stable: is_stable(object, &after, begin, reading.min_age) })
}

/// The object's BLAKE3 hash, if the digests of all its blocks are known.
pub(crate) fn blake3_of_known(
    object: &dyn Object,
    manifest: &Manifest,
    blocks: &BlockDigests,
) -> Option<Blake3Digest> {
    // Known digests belong to this version only.
    let now = object.current_identity().ok().filter(|now| *now == object.identity())?;
    let digests: Option<Vec<_>> = manifest.blocks().map(|block| blocks.find(&now, manifest, block)).collect();
    Blake3Digest::of_blocks(manifest, &digests?)
}

/// The object's BLAKE3 hash, for which the blocks with unknown digests are read; blocks the calling thread.
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
        // Known digests belong to this version only.
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
    Ok(Hashed { digest, is_stable: is_stable(object, &after, begin, reading.min_age) })
}

/// The digests of consecutive blocks.
fn hash_run(
    object: &dyn Object,
    manifest: &Manifest,
    run: &[BlockId],
    reading: &Reading,
) -> Result<Vec<RangeDigest>, DigestError> {
    let of_run = |block: Option<&BlockId>| block.map(|block| manifest.range(*block)).unwrap_or_default();
    let range = ByteRange::new(of_run(run.first()).start(), of_run(run.last()).end());
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
            let n = bytes.len().min(to_usize(left));
            let (now, later) = bytes.split_at_checked(n).unwrap_or((bytes, &[]));
            let taken = hasher.as_mut().and_then(|hasher| hasher.update(now));
            left -= to_u64(n);
            bytes = later;
            if left == 0 || taken.is_none() {
                digests.extend(hasher.take().and_then(RangeHasher::finish));
            }
        }
        flow
    };
    read_through(object, range, visit).map_err(|error| unreadable(&error))?;
    if reading.cancel.is_cancelled() {
        return Err(DigestError::Cancelled);
    }
    // Otherwise it is shorter than when it was opened.
    if digests.len() == run.len() { Ok(digests) } else { Err(DigestError::Changed) }
}

/// The object's current identity, which must still be that of the content that was opened.
fn opened_content(object: &dyn Object) -> Result<ObjectIdentity, DigestError> {
    let now = object.current_identity().map_err(|error| unreadable(&error))?;
    if object.identity().same_content(&now) { Ok(now) } else { Err(DigestError::Changed) }
}

pub(crate) fn unreadable(error: &io::Error) -> DigestError {
    // Reading a file never fails like this, but starting a thread does.
    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory) {
        DigestError::Shortage
    } else {
        DigestError::Unreadable
    }
}
