//! The blocks of one file: where they are received, proven, and recorded.
//!
//! The order is in the types: a [`Leased`] block is received, [`verify`](Leased::verify) makes it [`Verified`], and
//! only such a block can be committed. A block counts when it is in its place, and is recorded after that.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::digest::RangeDigest;
use crate::manifest::{BlockId, BlockSet, ByteRange, Manifest};
use crate::sink::journal::Journal;
use crate::sink::store::BUFFERS;
use crate::sink::store::{Buffers, Heap};
use crate::sink::store::{FillError, Lease, Store};

/// A file that is received block by block, by tasks on several threads.
#[derive(Debug)]
pub(crate) struct FileSink {
    manifest: Manifest,
    store: Arc<dyn Store>,
    journal: Option<Journal>,
    done: Mutex<BlockSet>,
    /// For second copies.
    buffers: Arc<Buffers>,
}

impl FileSink {
    /// The file in `store`, in which the blocks `done` are already, and whose others are recorded in `journal`.
    ///
    /// # Errors
    /// The store has not room for all blocks that are done, or others are working on it.
    pub(crate) fn new(
        manifest: Manifest,
        store: Arc<dyn Store>,
        journal: Option<Journal>,
        done: BlockSet,
    ) -> io::Result<Self> {
        for block in manifest.blocks().filter(|block| done.contains(*block)) {
            if !store.declare_filled(manifest.range(block)) {
                return Err(io::Error::other("there is no place for what was received before"));
            }
        }
        let buffers = Arc::new(Buffers::with_room(BUFFERS));
        Ok(Self { manifest, store, journal, done: Mutex::new(done), buffers })
    }

    /// The store, to read what was committed.
    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// How many blocks may be received at once: their size is the peer's choice, and all that is in buffers is in memory.
    ///
    /// Whoever opens streams keeps to it: a block that had come and found no room would have come for nothing.
    pub(crate) fn most_at_once(&self) -> usize {
        if !self.store.is_buffered() {
            return usize::MAX;
        }
        usize::try_from(BUFFERS / self.manifest.block_size().bytes()).map_or(usize::MAX, |most| most.max(1))
    }

    /// The exclusive right to receive `block` into its place; `None` if somebody has it, or it is there already.
    pub(crate) fn lease(&self, block: BlockId) -> Option<Leased> {
        let lease = self.store.lease(self.manifest.range(block))?;
        Some(self.leased(block, Place::Own(lease)))
    }

    /// Room beside the file for a second copy of a block that somebody else has leased; `None` if such copies take all that
    /// they may.
    pub(crate) fn lease_scratch(&self, block: BlockId) -> Option<Leased> {
        let heap = Heap::new(&self.buffers, self.manifest.range(block).len())?;
        Some(self.leased(block, Place::Spare(heap)))
    }

    fn leased(&self, block: BlockId, place: Place) -> Leased {
        Leased { block, size: self.manifest.size(), range: self.manifest.range(block), place }
    }

    /// Puts a block into its place, and records it then.
    ///
    /// # Errors
    /// [`CommitError::Occupied`] gives a lease_scratch copy back whose place somebody else has at the moment.
    pub(crate) fn commit(&self, verified: Verified) -> Result<(), CommitError> {
        let Verified { leased, digest } = verified;
        let block = leased.block;
        let lease = match leased.place {
            Place::Own(lease) => lease,
            Place::Spare(heap) => match self.store.lease(leased.range) {
                Some(lease) => copied(&heap, lease).map_err(CommitError::Store)?,
                None if self.done().contains(block) => return Err(CommitError::AlreadyThere),
                None => {
                    let leased = Leased { place: Place::Spare(heap), ..leased };
                    return Err(CommitError::Occupied(Verified { leased, digest }));
                }
            },
        };
        lease.commit().map_err(CommitError::Store)?;
        self.done().insert(block);
        match &self.journal {
            Some(journal) => journal.record(block, digest).map_err(CommitError::Store),
            None => Ok(()),
        }
    }

    fn done(&self) -> MutexGuard<'_, BlockSet> {
        // Nothing that can panic happens under the lock.
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Copies a block that was received beside the file into its place.
fn copied(heap: &Heap, mut lease: Box<dyn Lease>) -> io::Result<Box<dyn Lease>> {
    let mut bytes = heap.received();
    while !bytes.is_empty() {
        let n = lease.fill(&mut |space| io::Read::read(&mut bytes, space)).map_err(|error| match error {
            FillError::Source(error) | FillError::Store(error) => error,
        })?;
        if n == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
    Ok(lease)
}

/// The exclusive right to receive one block; dropping it gives the block back.
#[derive(Debug)]
pub(crate) struct Leased {
    block: BlockId,
    /// The file's size, which decides what the block's digest is.
    size: u64,
    range: ByteRange,
    place: Place,
}

/// Where a block is received.
#[derive(Debug)]
enum Place {
    /// Where it belongs.
    Own(Box<dyn Lease>),
    /// Beside the file.
    Spare(Heap),
}

impl Leased {
    /// Which block it is.
    #[cfg(test)]
    pub(crate) fn block(&self) -> BlockId {
        self.block
    }

    /// How many bytes of it are still to be received.
    pub(crate) fn remaining(&self) -> u64 {
        match &self.place {
            Place::Own(lease) => lease.remaining(),
            Place::Spare(heap) => heap.remaining(),
        }
    }

    /// As [`Lease::fill`]: lets `source` put bytes into what remains of the block, and returns how many it put there.
    pub(crate) fn fill(
        &mut self,
        source: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> Result<usize, FillError> {
        match &mut self.place {
            Place::Own(lease) => lease.fill(source),
            Place::Spare(heap) => heap.fill(source),
        }
    }

    /// Hashes what was received and compares it with the digest that the sender named.
    ///
    /// Right after the last byte, while the block is in the core's cache: for blocks from 64 KiB to 1 MiB this took no more of
    /// a core than hashing piece by piece as bytes came (0.11 s for 1 GB).
    ///
    /// # Errors
    /// A block that does not match, or of which bytes are missing, is given back empty, to be received again.
    pub(crate) fn verify(mut self, expected: RangeDigest) -> Result<Verified, Unverified> {
        let bytes = match &mut self.place {
            Place::Own(lease) => lease.received().map_err(Unverified::Store)?,
            Place::Spare(heap) => heap.received(),
        };
        if RangeDigest::of(self.size, self.range, bytes) == Some(expected) {
            Ok(Verified { leased: self, digest: expected })
        } else {
            Err(Unverified::Mismatch(self.restarted()))
        }
    }

    /// Takes the block for what the sender says it is, without hashing it: for measurements of everything else only.
    ///
    /// # Errors
    /// As [`verify`](Self::verify), if bytes are missing.
    pub(crate) fn trust_unverified(self, claimed: RangeDigest) -> Result<Verified, Unverified> {
        if self.remaining() > 0 {
            return Err(Unverified::Mismatch(self.restarted()));
        }
        Ok(Verified { leased: self, digest: claimed })
    }

    /// The block without what was received of it.
    fn restarted(mut self) -> Self {
        match &mut self.place {
            Place::Own(lease) => lease.restart(),
            Place::Spare(heap) => heap.restart(),
        }
        self
    }
}

/// A block that was received whole and has the digest that the sender named.
#[derive(Debug)]
pub(crate) struct Verified {
    leased: Leased,
    digest: RangeDigest,
}

impl Verified {
    /// Which block it is.
    pub(crate) fn block(&self) -> BlockId {
        self.leased.block
    }

    /// Its digest.
    pub(crate) fn digest(&self) -> RangeDigest {
        self.digest
    }
}

/// Why a block is not verified.
#[derive(Debug)]
pub(crate) enum Unverified {
    /// Its bytes are not those of that digest; it is empty again.
    Mismatch(Leased),
    /// It cannot be read back.
    Store(io::Error),
}

/// Why a verified block was not committed.
#[derive(Debug)]
pub(crate) enum CommitError {
    /// Somebody else has its place; it can be tried again when that lease is over.
    Occupied(Verified),
    /// Another copy of it was committed before.
    AlreadyThere,
    /// It could not be written, or not be recorded.
    Store(io::Error),
}

#[cfg(test)]
mod tests;
