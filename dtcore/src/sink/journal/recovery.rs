//! Whether a transfer can resume from a stale journal, and which of its blocks are valid.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;

use crate::digest::{RangeDigest, RangeHasher};
use crate::manifest::{BlockId, BlockSet, ByteRange, Manifest};
use crate::num::to_usize;
use crate::sink::journal::format::{JournalContents, PartIdentity, Record, SourceIdentity};
use crate::sink::sparse::Holes;
use crate::sys::{PIECE, PieceReader, filesystem};

/// The blocks that are in place when a transfer starts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Recovered {
    /// The blocks that are in the part file.
    pub(crate) done: BlockSet,
    /// Their digests by block index; `None` for the other blocks.
    pub(crate) digests: Vec<Option<RangeDigest>>,
    /// Their total size.
    pub(crate) bytes: u64,
    pub(crate) outcome: Outcome,
}

/// How a transfer starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// There was no part file.
    Fresh,
    /// It resumes an earlier transfer.
    Resumed,
    /// The part file of an earlier transfer cannot be used.
    Restarted { reason: &'static str },
}

impl Recovered {
    /// No block is in place.
    pub(crate) fn empty(manifest: &Manifest, outcome: Outcome) -> Self {
        let n_blocks = to_usize(manifest.n_blocks().into());
        Self { done: BlockSet::new(manifest), digests: vec![None; n_blocks], bytes: 0, outcome }
    }

    fn add(&mut self, manifest: &Manifest, block: BlockId, digest: RangeDigest) {
        if self.done.insert(block) {
            self.bytes += manifest.range(block).len();
        }
        if let Some(slot) = self.digests.get_mut(block.index()) {
            *slot = Some(digest);
        }
    }

    fn forget(&mut self, manifest: &Manifest, block: BlockId) {
        if self.done.remove(block) {
            self.bytes -= manifest.range(block).len();
        }
        if let Some(slot) = self.digests.get_mut(block.index()) {
            *slot = None;
        }
    }

    /// Those of the blocks of a file `from` that have the same place in a file `to`. Their digests depend on nothing else, as
    /// neither file is one block.
    pub(in super::super) fn carried(mut self, from: &Manifest, to: &Manifest) -> Self {
        for block in from.blocks() {
            let place = to.block(block.value().into()).map(|block| to.range(block));
            if place != Some(from.range(block)) {
                self.forget(from, block);
            }
        }
        let mut carried = Self::empty(to, self.outcome);
        for Record { block, digest } in self.records(from) {
            carried.add(to, block, digest);
        }
        carried
    }

    /// The records of all blocks in place.
    pub(in super::super) fn records(&self, manifest: &Manifest) -> Vec<Record> {
        let known = manifest.blocks().zip(&self.digests);
        known.filter_map(|(block, digest)| digest.map(|digest| Record { block, digest })).collect()
    }
}

/// How to use a stale journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) enum ResumeDecision {
    Resume(Trust),
    Restart(&'static str),
    /// Only if the blocks are verified to be those of the remote file, which may have changed.
    Prove(SourceChange),
}

/// A remote file with another size, modification time or version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) struct SourceChange {
    /// Whether the blocks that were saved of it are still in the part file.
    pub(in super::super) trust: Trust,
    /// Whether the user names it as before; else it may be another file.
    pub(in super::super) is_same_name: bool,
}

/// Whether the recorded blocks must be rehashed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) enum Trust {
    /// No, unless the part file was truncated: since they were written the kernel has kept their bytes.
    Full,
    /// Yes: the machine was rebooted or the file system unmounted since they were written.
    AfterRehash,
}

/// Whether the stale journal belongs to a transfer from `source_identity` into `part`, and to the current `boot`.
pub(in super::super) fn check_journal(
    stale: &JournalContents,
    source_identity: &SourceIdentity,
    part: PartIdentity,
    boot: Option<[u8; 16]>,
) -> ResumeDecision {
    let then = &stale.header.source_identity;
    if stale.records.is_empty() {
        return ResumeDecision::Restart("the partial file contains no complete block");
    }
    // On some file systems, device and inode get other numbers each time they are mounted. After that, or in a file that is not
    // the journal's, the bytes decide.
    let is_same_mount = boot == Some(stale.header.boot) && stale.header.part == part;
    let trust = if is_same_mount { Trust::Full } else { Trust::AfterRehash };
    if (then.manifest.size(), then.modified, then.version)
        != (source_identity.manifest.size(), source_identity.modified, source_identity.version)
    {
        let is_same_name = then.remote == source_identity.remote;
        return ResumeDecision::Prove(SourceChange { trust, is_same_name });
    }
    if then.manifest != source_identity.manifest {
        return ResumeDecision::Restart("the server has changed the block size");
    }
    ResumeDecision::Resume(trust)
}

/// How much of the part file has been rehashed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Checked {
    /// The bytes rehashed so far.
    pub(crate) bytes: u64,
    /// The bytes to rehash in total.
    pub(crate) of: u64,
}

/// Called before each block is rehashed; a break cancels.
pub(crate) type Watch<'a> = dyn FnMut(Checked) -> ControlFlow<()> + 'a;

/// The valid blocks of `part` that the journal records, and whether some recorded blocks are invalid; `None` if `watch`
/// cancelled it.
///
/// Blocks the calling thread, for minutes if many blocks must be rehashed.
pub(in super::super) fn recover(
    stale: &JournalContents,
    part: &File,
    trust: Trust,
    watch: &mut Watch<'_>,
) -> io::Result<Option<(Recovered, bool)>> {
    let manifest = &stale.header.source_identity.manifest;
    let mut recovered = Recovered::empty(manifest, Outcome::Resumed);
    for record in &stale.records {
        recovered.add(manifest, record.block, record.digest);
    }
    let (n_recorded, of) = (recovered.done.len(), recovered.bytes);
    let len = part.metadata()?.len();
    // Space for the entire file was reserved at the start, except on tmpfs.
    let min_space = if filesystem::is_tmpfs(part)? { of } else { manifest.size() };
    let mut holes = Holes::of(part, min_space)?;
    let mut buffer = vec![0; PIECE];
    let mut bytes = 0_u64;
    for Record { block, digest } in recovered.records(manifest) {
        if trust == Trust::AfterRehash && watch(Checked { bytes, of }).is_break() {
            return Ok(None);
        }
        let range = manifest.range(block);
        let is_valid = range.end() <= len
            // Unreadable blocks are fetched again.
            && ((trust == Trust::Full && !holes.may_affect(range))
                || digest_of(part, manifest, block, &mut buffer).ok().flatten() == Some(digest));
        if !is_valid {
            recovered.forget(manifest, block);
        }
        bytes += range.len();
    }
    let is_less = recovered.done.len() < n_recorded;
    Ok(Some((recovered, is_less)))
}

/// Whether `part`, in which all blocks were verified, has not been truncated since: blocks next to holes are rehashed.
pub(in super::super) fn is_intact(
    part: &File,
    manifest: &Manifest,
    digests: &[Option<RangeDigest>],
) -> io::Result<bool> {
    let mut holes = Holes::of(part, manifest.size())?;
    let mut buffer = vec![0; PIECE];
    for (block, digest) in manifest.blocks().zip(digests) {
        if holes.may_affect(manifest.range(block))
            && digest_of(part, manifest, block, &mut buffer)? != *digest
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether `part`, in which all blocks were verified, still has all of them: reads it from end to end.
pub(in super::super) fn has_all_blocks(
    part: &File,
    manifest: &Manifest,
    digests: &[Option<RangeDigest>],
) -> io::Result<bool> {
    let mut buffer = vec![0; PIECE];
    for (block, digest) in manifest.blocks().zip(digests) {
        if digest_of(part, manifest, block, &mut buffer)? != *digest {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether `file` contains a block that the journal records, in its place.
pub(super) fn has_recorded_block(stale: &JournalContents, file: &File) -> bool {
    let mut buffer = vec![0; PIECE];
    let manifest = &stale.header.source_identity.manifest;
    stale.records.iter().any(|Record { block, digest }| {
        digest_of(file, manifest, *block, &mut buffer).ok().flatten() == Some(*digest)
    })
}

/// Where the recorded blocks are.
pub(in super::super) fn recorded_ranges(stale: &JournalContents) -> Vec<ByteRange> {
    let manifest = &stale.header.source_identity.manifest;
    let mut recorded = BlockSet::new(manifest);
    stale.records.iter().for_each(|record| {
        recorded.insert(record.block);
    });
    let blocks = manifest.blocks().filter(|block| recorded.contains(*block));
    blocks.map(|block| manifest.range(block)).collect()
}

/// The digest of a block in the part file; `None` if the file ends before.
fn digest_of(
    part: &File,
    manifest: &Manifest,
    block: BlockId,
    buffer: &mut [u8],
) -> io::Result<Option<RangeDigest>> {
    let range = manifest.range(block);
    let Some(mut hasher) = RangeHasher::new(manifest.size(), range) else { return Ok(None) };
    let mut pieces = PieceReader::new(range, |buffer, offset| part.read_at(buffer, offset));
    while let piece @ [_, ..] = pieces.next(buffer)? {
        if hasher.update(piece).is_none() {
            return Ok(None);
        }
    }
    Ok(hasher.finish())
}
