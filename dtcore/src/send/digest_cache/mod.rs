//! The digests of served objects, so that an unchanged object is read once.

mod blocks;
mod hashing;
mod single_flight;
mod stability;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio_util::task::TaskTracker;

use crate::backend::{Object, ObjectIdentity};
use crate::digest::{Blake3Digest, Md5Digest};
use crate::manifest::Manifest;
use crate::send::fair_queue::FairQueue;
pub(crate) use blocks::BlockDigests;
use single_flight::SingleFlight;
pub(crate) use stability::MIN_AGE;

/// Remembers digests by object identity; an object that several clients request at once is read once.
#[derive(Debug)]
pub(crate) struct DigestCache {
    md5: Arc<SingleFlight<Md5Digest>>,
    blake3: Arc<SingleFlight<Blake3Digest>>,
    blocks: Arc<BlockDigests>,
}

/// Why a digest is not available.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum DigestError {
    /// The file was written to while it was read.
    #[error("the file changed while it was read")]
    Changed,
    /// The file could not be read.
    #[error("the server cannot read the file")]
    Unreadable,
    /// The system had no thread or no memory for reading it; temporary.
    #[error("the server is out of resources")]
    Shortage,
    /// The computation ended without a result.
    #[error("the file's digest could not be computed")]
    Failed,
    /// The server is shutting down, or no client waits for the digest.
    #[error("the server is shutting down")]
    Cancelled,
}

impl DigestCache {
    /// An empty cache, which remembers digests of objects that had not changed for `min_age` when they were read.
    ///
    /// Its work runs in tasks of `tracker`; the bytes that it reads are added to `bytes_hashed`.
    pub(crate) fn new(min_age: Duration, tracker: &TaskTracker, bytes_hashed: Arc<AtomicU64>) -> Self {
        let n_cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self::with_cores(n_cores, min_age, tracker, bytes_hashed)
    }

    fn with_cores(
        n_cores: usize,
        min_age: Duration,
        tracker: &TaskTracker,
        bytes_hashed: Arc<AtomicU64>,
    ) -> Self {
        // A queue for each kind: a BLAKE3 often lacks only a few blocks, and an MD5 takes minutes.
        let (md5_queue, blake3_queue) = (hashing_queue(n_cores), hashing_queue(n_cores));
        Self {
            md5: Arc::new(SingleFlight::new(md5_queue, tracker.clone(), min_age, Arc::clone(&bytes_hashed))),
            blake3: Arc::new(SingleFlight::new(
                blake3_queue,
                tracker.clone(),
                min_age,
                Arc::clone(&bytes_hashed),
            )),
            blocks: Arc::new(BlockDigests::new(blocks::CAPACITY, min_age, bytes_hashed)),
        }
    }

    /// The MD5 of `object`, from memory if it is known.
    ///
    /// An object that must be read waits until `client_key`, or another client that requests it, has its turn.
    ///
    /// # Cancel safety
    /// Dropping the future ends this caller's interest; reading stops when no caller is left.
    pub(crate) async fn md5(
        &self,
        object: &Arc<dyn Object>,
        client_key: IpAddr,
    ) -> Result<Md5Digest, DigestError> {
        self.md5.digest(object, client_key, hashing::md5).await
    }

    /// The BLAKE3 hash of `object`, from the digests of its blocks; unknown blocks are read.
    ///
    /// Turns and cancellation are those of [`md5`](Self::md5); if all blocks are known no turn is needed.
    pub(crate) async fn blake3(
        &self,
        object: &Arc<dyn Object>,
        manifest: Manifest,
        client_key: IpAddr,
    ) -> Result<Blake3Digest, DigestError> {
        if let Some(known) = self.known_blake3(&object.identity()) {
            return Ok(known);
        }
        let (known, file) = (Arc::clone(&self.blocks), Arc::clone(object));
        let merging =
            tokio::task::spawn_blocking(move || hashing::blake3_of_known(&*file, &manifest, &known));
        if let Ok(Some(digest)) = merging.await {
            self.blake3.remember(object.identity(), digest);
            return Ok(digest);
        }
        let blocks = Arc::clone(&self.blocks);
        self.blake3
            .digest(object, client_key, move |object, reading| {
                hashing::blake3(object, &manifest, &blocks, reading)
            })
            .await
    }

    /// The MD5 of that version of an object, if it is known.
    pub(crate) fn known_md5(&self, identity: &ObjectIdentity) -> Option<Md5Digest> {
        self.md5.known(identity)
    }

    /// The BLAKE3 hash of that version of an object, if it is known.
    pub(crate) fn known_blake3(&self, identity: &ObjectIdentity) -> Option<Blake3Digest> {
        self.blake3.known(identity)
    }

    /// Forgets all digests of that version of an object, as one of them turned out not to match its content.
    ///
    /// Identities do not show every change: the kernel may update the times late after a write through a mapping.
    pub(crate) fn forget(&self, identity: &ObjectIdentity) {
        self.blocks.forget(identity);
        self.md5.forget(identity);
        self.blake3.forget(identity);
    }

    /// How many bytes of that version of an object have been hashed for the digests that are being computed now.
    pub(crate) fn progress(&self, identity: &ObjectIdentity) -> u64 {
        self.md5.progress(identity) + self.blake3.progress(identity)
    }

    /// The digests of blocks.
    pub(crate) fn blocks(&self) -> &BlockDigests {
        &self.blocks
    }
}

/// A permit for each core, half of them for one client.
///
/// With few cores there are three permits, two for one client: a small file does not wait until the large one is hashed that
/// the same client requested before, and another client waits for neither.
fn hashing_queue(n_cores: usize) -> Arc<FairQueue> {
    let n_permits = n_cores.max(3);
    FairQueue::with_limits(n_permits, (n_permits / 2).max(2))
}
