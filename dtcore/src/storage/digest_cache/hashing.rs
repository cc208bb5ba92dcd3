//! Hashes one file, and tells whether its digest can be trusted to last.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio_util::sync::CancellationToken;

use super::{DigestError, FileIdentity, SourceFile};
use crate::integrity::{Md5Digest, Md5Hasher};
use crate::storage::read_through::{Flow, read_through};

/// The kernel's clock for file times stands still for up to 10 ms (`CONFIG_HZ=100`). Two writes within one tick
/// leave the same change time, so a file changed this recently could change again without its identity showing it.
pub(super) const TICK: Duration = Duration::from_millis(20);

/// A digest, and how long it may be remembered.
pub(super) struct Hashed {
    pub(super) digest: Md5Digest,
    pub(super) lasting: Lasting,
}

/// Whether the identity that was hashed can be trusted to stand for this content only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lasting {
    Yes,
    No,
}

/// Reads and hashes the whole file; blocks the calling thread.
pub(super) fn hash_file(
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
    let mut read = 0_u64;
    let visit = |bytes: &[u8]| {
        hasher.update(bytes);
        let n = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        bytes_hashed.fetch_add(n, Ordering::Relaxed);
        read = read.saturating_add(n);
        // A file that grows has changed; following it could go on for ever.
        if cancel.is_cancelled() || read > source.size() { Flow::Stop } else { Flow::Continue }
    };
    read_through(source, visit).map_err(unreadable)?;
    if cancel.is_cancelled() {
        return Err(DigestError::Cancelled);
    }
    let after = source.current_identity().map_err(unreadable)?;
    if !source.same_content(&after) || read != source.size() {
        return Err(DigestError::Changed);
    }
    let lasting = if after == source.identity() { settled(&after, begin) } else { Lasting::No };
    Ok(Hashed { digest: hasher.finish(), lasting })
}

/// Whether the file had been left alone for a tick of the file clock when the hash began.
pub(super) fn settled(identity: &FileIdentity, begin: SystemTime) -> Lasting {
    let begin = begin.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(TICK);
    match i128::try_from(begin.as_nanos()) {
        Ok(begin) if identity.changed() <= begin => Lasting::Yes,
        _ => Lasting::No,
    }
}
