//! The digests of the files that were asked for, so that what is unchanged is read once.

mod blocks;
mod hashing;
mod single_flight;
#[cfg(test)]
mod tests;
mod turns;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio_util::task::TaskTracker;

use crate::backend::{Object, ObjectIdentity};
use crate::digest::{Blake3Digest, Md5Digest};
use crate::manifest::Manifest;
pub(crate) use blocks::BlockDigests;
pub(crate) use hashing::MIN_AGE;
use single_flight::SingleFlight;
use turns::Turns;

/// Remembers digests by file identity; a file that several ask for at once is read once.
#[derive(Debug)]
pub(crate) struct DigestCache {
    md5: Arc<SingleFlight<Md5Digest>>,
    blake3: Arc<SingleFlight<Blake3Digest>>,
    blocks: Arc<BlockDigests>,
}

/// Why there is no digest.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum DigestError {
    /// The file was written to meanwhile.
    #[error("the file changed while it was read")]
    Changed,
    /// The file could not be read.
    #[error("the server cannot read the file")]
    Unreadable,
    /// There was no thread or no memory to read it with, which passes.
    #[error("the server is out of resources")]
    Shortage,
    /// The work on it ended without a result.
    #[error("the file's digest could not be computed")]
    Failed,
    /// The server is session_end.
    #[error("the server is shutting down")]
    Cancelled,
}

impl DigestCache {
    /// An empty cache, which remembers what is read of files that were left alone for `min_age` before.
    ///
    /// Its work runs as tasks of `tracker`, and adds to `bytes_hashed` what it reads.
    pub(crate) fn new(min_age: Duration, tracker: &TaskTracker, bytes_hashed: Arc<AtomicU64>) -> Self {
        let n_cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self::with_turns(n_cores, min_age, tracker, bytes_hashed)
    }

    fn with_turns(
        n_cores: usize,
        min_age: Duration,
        tracker: &TaskTracker,
        bytes_hashed: Arc<AtomicU64>,
    ) -> Self {
        let desk_hashed = Arc::clone(&bytes_hashed);
        Self {
            md5: Arc::new(SingleFlight::new(Turns::new(n_cores), tracker.clone(), min_age, desk_hashed)),
            // Turns of its own: what a whole BLAKE3 lacks is often little, and an MD5 takes minutes.
            blake3: Arc::new(SingleFlight::new(
                Turns::new(n_cores),
                tracker.clone(),
                min_age,
                Arc::clone(&bytes_hashed),
            )),
            blocks: Arc::new(BlockDigests::new(blocks::CAPACITY, min_age, bytes_hashed)),
        }
    }

    /// The MD5 of `object`, from memory if this version of the file is known.
    ///
    /// A file that must be read waits until `client_key` has its turn, or somebody else who wants the same file.
    ///
    /// # Cancel safety
    /// Dropping the future gives up this caller's interest; the file is read on only while somebody waits.
    pub(crate) async fn md5(
        &self,
        object: &Arc<dyn Object>,
        client_key: IpAddr,
    ) -> Result<Md5Digest, DigestError> {
        self.md5.digest(object, client_key, hashing::md5).await
    }

    /// The BLAKE3 hash of `object`, from the digests of its blocks; those that are not known are read.
    ///
    /// Turns and cancelling are those of [`md5`](Self::md5); a file of which all is known needs none.
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

    /// The MD5 of that version of a file, if it is known.
    pub(crate) fn known_md5(&self, identity: &ObjectIdentity) -> Option<Md5Digest> {
        self.md5.known(identity)
    }

    /// The BLAKE3 hash of that version of a file, if it is known.
    pub(crate) fn known_blake3(&self, identity: &ObjectIdentity) -> Option<Blake3Digest> {
        self.blake3.known(identity)
    }

    /// Forgets all digests of that version of a file, one of which turned out not to be of its content.
    ///
    /// Identities cannot tell everything: what is written through a mapping shows in the times when the kernel likes.
    pub(crate) fn forget(&self, identity: &ObjectIdentity) {
        self.blocks.forget(identity);
        self.md5.forget(identity);
        self.blake3.forget(identity);
    }

    /// How many bytes of that version of a file are through for the digests that are being computed now.
    pub(crate) fn progress(&self, identity: &ObjectIdentity) -> u64 {
        self.md5.progress(identity).saturating_add(self.blake3.progress(identity))
    }

    /// The digests of blocks.
    pub(crate) fn blocks(&self) -> &BlockDigests {
        &self.blocks
    }
}
