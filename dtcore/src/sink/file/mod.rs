//! The blocks of one file: where they are received, verified, and recorded.
//!
//! The types enforce the order: a [`BlockLease`] is filled; [`finish`](BlockLease::finish) hashes the block and makes it
//! [`Received`]; [`verify`](Received::verify) compares the hash with the digest of the sender, which may arrive much later, and
//! makes it [`Verified`]; and only such a block can be committed. A block counts when it is in its place, and is recorded after
//! that.

use std::io;
use std::sync::Arc;

use crate::digest::RangeDigest;
use crate::manifest::{BlockId, BlockSet, ByteRange, Manifest};
use crate::num::to_usize;
use crate::sink::journal::Journal;
use crate::sink::store::{BUFFERS, Buffers, FillError, Heap, Lease, Store};

mod freed;

use freed::{FreedNotice, PlaceFreed};

/// A file that is received block by block, by tasks on several threads.
#[derive(Debug)]
pub(crate) struct FileSink {
    manifest: Manifest,
    /// Where the committed blocks can be read.
    pub(crate) store: Arc<dyn Store>,
    journal: Option<Journal>,
    /// For second copies.
    buffers: Arc<Buffers>,
    place_freed: PlaceFreed,
}

impl FileSink {
    /// The file in `store`, which has the blocks `done` already, and whose other blocks are recorded in `journal`.
    ///
    /// `place_freed` is called after every commit, and whenever a block is dropped that was not committed: a task that waits for
    /// the place of a block can try again then. It must not block.
    ///
    /// # Errors
    /// The store does not have room for all blocks of `done`, or they are leased.
    pub(crate) fn new(
        manifest: Manifest,
        store: Arc<dyn Store>,
        journal: Option<Journal>,
        done: &BlockSet,
        place_freed: Box<dyn Fn() + Send + Sync>,
    ) -> io::Result<Self> {
        for block in manifest.blocks().filter(|block| done.contains(*block)) {
            if !store.declare_filled(manifest.range(block)) {
                return Err(io::Error::other("the store has no place for the blocks received before"));
            }
        }
        let buffers = Arc::new(Buffers::with_room(BUFFERS));
        Ok(Self { manifest, store, journal, buffers, place_freed: PlaceFreed::new(place_freed) })
    }

    /// How many blocks may be received at once: their size is the peer's choice, and all buffered bytes are in memory.
    ///
    /// No more streams may be opened: a block that arrives and finds no room was sent for nothing.
    pub(crate) fn most_at_once(&self) -> usize {
        if !self.store.is_buffered() {
            return usize::MAX;
        }
        to_usize(BUFFERS / self.manifest.block_size().bytes()).max(1)
    }

    /// The exclusive right to receive `block` into its place; `None` if it is leased, or there already.
    pub(crate) fn lease(&self, block: BlockId) -> Option<BlockLease> {
        let lease = self.store.lease(self.manifest.range(block))?;
        Some(self.block_lease(block, Place::Own(lease)))
    }

    /// Room on the heap for a second copy of a block that is leased already; `None` if such copies take all the memory that
    /// they may.
    pub(crate) fn lease_scratch(&self, block: BlockId) -> Option<BlockLease> {
        let heap = Heap::new(&self.buffers, self.manifest.range(block).len())?;
        Some(self.block_lease(block, Place::Scratch(heap)))
    }

    fn block_lease(&self, block: BlockId, place: Place) -> BlockLease {
        let held = Held { block, place, notice: self.place_freed.notice() };
        BlockLease { size: self.manifest.size(), range: self.manifest.range(block), held }
    }

    /// Puts a block into its place, where it is not there yet, and records it then.
    ///
    /// # Errors
    /// [`CommitError::Occupied`] gives a scratch copy back whose place is leased at the moment.
    pub(crate) fn commit(&self, verified: Verified) -> Result<(), CommitError> {
        let Verified { held, digest } = verified;
        // Dropped last, when the place is free or filled.
        let Held { block, place, notice } = held;
        let range = self.manifest.range(block);
        let lease = match place {
            Place::Own(lease) => lease,
            Place::Scratch(heap) => match self.store.lease(range) {
                Some(lease) => copied(&heap, lease).map_err(CommitError::Store)?,
                None if self.store.is_filled(range) => return Err(CommitError::AlreadyThere),
                None => {
                    let held = Held { block, place: Place::Scratch(heap), notice };
                    return Err(CommitError::Occupied(Verified { held, digest }));
                }
            },
        };
        lease.commit().map_err(CommitError::Store)?;
        match &self.journal {
            Some(journal) => journal.record(block, digest).map_err(CommitError::Store),
            None => Ok(()),
        }
    }
}

/// Copies a block from the heap into its place.
fn copied(heap: &Heap, mut lease: Box<dyn Lease>) -> io::Result<Box<dyn Lease>> {
    let mut bytes = heap.received();
    while !bytes.is_empty() {
        let n = lease.fill(&mut |space| io::Read::read(&mut bytes, space)).map_err(FillError::into_io)?;
        if n == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
    Ok(lease)
}

/// A block and where its bytes are; dropping it frees the place.
#[derive(Debug)]
struct Held {
    block: BlockId,
    // Dropped in this order: the place is free before anybody is notified of it.
    place: Place,
    notice: FreedNotice,
}

/// Where a block is received.
#[derive(Debug)]
enum Place {
    /// Where it belongs.
    Own(Box<dyn Lease>),
    /// On the heap, as a second copy.
    Scratch(Heap),
}

/// The exclusive right to receive one block; dropping it gives the block back.
#[derive(Debug)]
pub(crate) struct BlockLease {
    held: Held,
    /// The file's size, which the digest of the block depends on.
    size: u64,
    range: ByteRange,
}

impl BlockLease {
    /// How many bytes of the block are still to be received.
    pub(crate) fn remaining(&self) -> u64 {
        match &self.held.place {
            Place::Own(lease) => lease.remaining(),
            Place::Scratch(heap) => heap.remaining(),
        }
    }

    /// As [`Lease::fill`]: lets `source` put bytes into the rest of the block, and returns how many it put there.
    pub(crate) fn fill(
        &mut self,
        source: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> Result<usize, FillError> {
        match &mut self.held.place {
            Place::Own(lease) => lease.fill(source),
            Place::Scratch(heap) => heap.fill(source),
        }
    }

    /// Hashes the received block, and writes it to its place unless it is a scratch copy. It does not count yet.
    ///
    /// To be called right after the last byte, while the block is in the core's cache: for blocks from 64 KiB to 1 MiB hashing
    /// then took no more of a core than hashing piece by piece as bytes arrived (0.11 s for 1 GB). From then on the block takes
    /// no memory, unless it is a scratch copy, so that it can wait for its digest.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] if bytes are missing, or the block cannot be written or read back. Then it is given
    /// back.
    pub(crate) fn finish(mut self) -> io::Result<Received> {
        let bytes = match &mut self.held.place {
            Place::Own(lease) => lease.received()?,
            Place::Scratch(heap) => heap.received(),
        };
        // A block of which bytes are missing has no digest.
        let digest = RangeDigest::of(self.size, self.range, bytes).ok_or(io::ErrorKind::UnexpectedEof)?;
        self.received(Some(digest))
    }

    /// As [`finish`](Self::finish), without hashing: only for measurements of everything else.
    ///
    /// # Errors
    /// As [`finish`](Self::finish).
    pub(crate) fn finish_unhashed(self) -> io::Result<Received> {
        if self.remaining() > 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { self.received(None) }
    }

    fn received(mut self, digest: Option<RangeDigest>) -> io::Result<Received> {
        if let Place::Own(lease) = &mut self.held.place {
            lease.flush()?;
        }
        Ok(Received { held: self.held, digest })
    }
}

/// A block of which all bytes were received; dropping it gives the block back.
#[derive(Debug)]
pub(crate) struct Received {
    held: Held,
    digest: Option<RangeDigest>,
}

impl Received {
    /// The block.
    pub(crate) fn block(&self) -> BlockId {
        self.held.block
    }

    /// Compares the block with the digest that the sender sent; `None` gives a block back that does not match. A block that was
    /// not hashed is taken for right.
    pub(crate) fn verify(self, expected: RangeDigest) -> Option<Verified> {
        let is_right = self.digest.is_none_or(|digest| digest == expected);
        is_right.then_some(Verified { held: self.held, digest: expected })
    }
}

/// A block that was received completely and has the digest that the sender sent; dropping it gives the block back.
#[derive(Debug)]
pub(crate) struct Verified {
    held: Held,
    digest: RangeDigest,
}

impl Verified {
    /// The block.
    pub(crate) fn block(&self) -> BlockId {
        self.held.block
    }

    /// Its digest.
    pub(crate) fn digest(&self) -> RangeDigest {
        self.digest
    }
}

/// Why a verified block was not committed.
#[derive(Debug)]
pub(crate) enum CommitError {
    /// Its place is leased; it can be tried again when that lease is over.
    Occupied(Verified),
    /// Another copy of it was committed before.
    AlreadyThere,
    /// It could not be written, or not be recorded.
    Store(io::Error),
}

#[cfg(test)]
mod tests;
