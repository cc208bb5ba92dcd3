//! What can be gone on with: whether a journal that was found is about this transfer, and which of its blocks are right.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;

use crate::digest::{RangeDigest, RangeHasher};
use crate::manifest::{BlockIndex, BlockPlan, BlockSet};
use crate::sink::journal::format::{Contents, Origin, PartIdentity, Record};
use crate::sink::sparse::Holes;
use crate::sys::filesystem;

/// What is there already when a transfer begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Recovered {
    /// The blocks that are in the part file.
    pub(crate) done: BlockSet,
    /// Their digests, by index; none for the others.
    pub(crate) digests: Vec<Option<RangeDigest>>,
    /// How many bytes they have together.
    pub(crate) bytes: u64,
    pub(crate) outcome: Outcome,
}

/// How a transfer begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// There was nothing to go on with.
    Fresh,
    /// It goes on where an earlier one stopped.
    Continued,
    /// What was there is of no use.
    StartedOver { why: &'static str },
}

impl Recovered {
    /// Nothing at all.
    pub(crate) fn nothing(plan: &BlockPlan, outcome: Outcome) -> Self {
        let n_blocks = usize::try_from(plan.n_blocks()).unwrap_or(usize::MAX);
        Self { done: BlockSet::new(plan), digests: vec![None; n_blocks], bytes: 0, outcome }
    }

    fn add(&mut self, plan: &BlockPlan, block: BlockIndex, digest: RangeDigest) {
        if self.done.insert(block) {
            self.bytes = self.bytes.saturating_add(plan.range(block).len());
        }
        if let Some(place) = self.digests.get_mut(block.index()) {
            *place = Some(digest);
        }
    }

    fn forget(&mut self, plan: &BlockPlan, block: BlockIndex) {
        if self.done.remove(block) {
            self.bytes = self.bytes.saturating_sub(plan.range(block).len());
        }
        if let Some(place) = self.digests.get_mut(block.index()) {
            *place = None;
        }
    }

    /// The records of all that is there.
    pub(in super::super) fn records(&self, plan: &BlockPlan) -> Vec<Record> {
        let known = plan.blocks().zip(&self.digests);
        known.filter_map(|(block, digest)| digest.map(|digest| Record { block, digest })).collect()
    }
}

/// What is to be done with a journal that was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) enum Verdict {
    GoOn(Trust),
    StartOver(&'static str),
    SourceChanged,
}

/// What is to be thought of the blocks that a journal records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) enum Trust {
    /// They are right: the kernel has kept what was given to it, unless the part file was cut.
    Complete,
    /// They are right if their digests say so: the machine was down since, or the file system was taken down.
    AfterProof,
}

/// Whether the journal found is one of a transfer from `origin` into `part`, in the boot that is now.
pub(in super::super) fn judge(
    found: &Contents,
    origin: &Origin,
    part: PartIdentity,
    boot: Option<[u8; 16]>,
) -> Verdict {
    let then = &found.header.origin;
    if then.remote != origin.remote {
        return Verdict::StartOver("it was of another remote file");
    }
    // A device's number may be another each time it is mounted.
    if found.header.part.inode != part.inode {
        return Verdict::StartOver("its journal was about another file");
    }
    if found.records.is_empty() {
        return Verdict::StartOver("no block of it was complete");
    }
    if (then.plan.size(), then.modified, then.version)
        != (origin.plan.size(), origin.modified, origin.version)
    {
        return Verdict::SourceChanged;
    }
    if then.plan != origin.plan {
        return Verdict::StartOver("the server cuts the file into other blocks now");
    }
    let is_same_mount = boot == Some(found.header.boot) && found.header.part.device == part.device;
    Verdict::GoOn(if is_same_mount { Trust::Complete } else { Trust::AfterProof })
}

/// How far what is there has been read back and compared with its digests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Checked {
    /// The bytes that have been.
    pub(crate) bytes: u64,
    /// The bytes that are to be.
    pub(crate) of: u64,
}

/// Is told before each block that is read back, and may put an end to it.
pub(crate) type Watch<'a> = dyn FnMut(Checked) -> ControlFlow<()> + 'a;

/// Why it is not known what is there.
#[derive(Debug)]
pub(in super::super) enum RecoverError {
    /// Who watched put an end to it.
    Stopped,
    /// The part file cannot be looked at.
    Io(io::Error),
}

impl From<io::Error> for RecoverError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The blocks of `part` that the journal records and that are right; whether some of those recorded are not.
///
/// Reads back what is to be proven, which blocks the calling thread, for minutes where that is much.
pub(in super::super) fn recover(
    found: &Contents,
    part: &File,
    trust: Trust,
    watch: &mut Watch<'_>,
) -> Result<(Recovered, bool), RecoverError> {
    let plan = &found.header.origin.plan;
    let mut recovered = Recovered::nothing(plan, Outcome::Continued);
    for record in &found.records {
        recovered.add(plan, record.block, record.digest);
    }
    let (n_recorded, of) = (recovered.done.len(), recovered.bytes);
    let len = part.metadata()?.len();
    // In memory nothing is reserved; elsewhere the file had room for all of it from the beginning.
    let least_room = if filesystem::is_tmpfs(part)? { of } else { plan.size() };
    let mut holes = Holes::of(part, least_room)?;
    let mut buffer = Vec::new();
    let mut bytes = 0_u64;
    for Record { block, digest } in recovered.records(plan) {
        if trust == Trust::AfterProof && watch(Checked { bytes, of }).is_break() {
            return Err(RecoverError::Stopped);
        }
        let range = plan.range(block);
        let is_right = range.end() <= len
            // What cannot be read is fetched again.
            && ((trust == Trust::Complete && !holes.may_have_cut(range))
                || digest_of(part, plan, block, &mut buffer).ok().flatten() == Some(digest));
        if !is_right {
            recovered.forget(plan, block);
        }
        bytes = bytes.saturating_add(range.len());
    }
    let is_less = recovered.done.len() < n_recorded;
    Ok((recovered, is_less))
}

/// Whether no cut has taken bytes of `part`, in which each block has its digest: those that touch a hole are read back.
pub(in super::super) fn is_whole(
    part: &File,
    plan: &BlockPlan,
    digests: &[Option<RangeDigest>],
) -> io::Result<bool> {
    let mut holes = Holes::of(part, plan.size())?;
    let mut buffer = Vec::new();
    for (block, digest) in plan.blocks().zip(digests) {
        if holes.may_have_cut(plan.range(block)) && digest_of(part, plan, block, &mut buffer)? != *digest {
            return Ok(false);
        }
    }
    Ok(true)
}

/// How much is read back at once: it stays in the core's own cache until it is hashed.
const PIECE: u64 = 512 << 10;

/// Reads a block of the part file and hashes it.
fn digest_of(
    part: &File,
    plan: &BlockPlan,
    block: BlockIndex,
    buffer: &mut Vec<u8>,
) -> io::Result<Option<RangeDigest>> {
    let range = plan.range(block);
    let Some(mut hasher) = RangeHasher::new(plan.size(), range) else { return Ok(None) };
    let mut next = range.start();
    while next < range.end() {
        let len = (range.end() - next).min(PIECE);
        buffer.resize(usize::try_from(len).unwrap_or(0), 0);
        part.read_exact_at(buffer, next)?;
        if hasher.update(buffer).is_none() {
            return Ok(None);
        }
        next = next.saturating_add(len);
    }
    Ok(hasher.finish())
}
