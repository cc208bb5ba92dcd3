//! What can be gone on with: whether a journal that was found is about this transfer, and which of its blocks are right.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;

use crate::digest::{RangeDigest, RangeHasher};
use crate::manifest::{BlockId, BlockSet, Manifest};
use crate::sink::journal::format::{Contents, PartIdentity, Record, SourceIdentity};
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
    pub(crate) fn nothing(manifest: &Manifest, outcome: Outcome) -> Self {
        let n_blocks = usize::try_from(manifest.n_blocks()).unwrap_or(usize::MAX);
        Self { done: BlockSet::new(manifest), digests: vec![None; n_blocks], bytes: 0, outcome }
    }

    fn add(&mut self, manifest: &Manifest, block: BlockId, digest: RangeDigest) {
        if self.done.insert(block) {
            self.bytes = self.bytes.saturating_add(manifest.range(block).len());
        }
        if let Some(place) = self.digests.get_mut(block.index()) {
            *place = Some(digest);
        }
    }

    fn forget(&mut self, manifest: &Manifest, block: BlockId) {
        if self.done.remove(block) {
            self.bytes = self.bytes.saturating_sub(manifest.range(block).len());
        }
        if let Some(place) = self.digests.get_mut(block.index()) {
            *place = None;
        }
    }

    /// The records of all that is there.
    pub(in super::super) fn records(&self, manifest: &Manifest) -> Vec<Record> {
        let known = manifest.blocks().zip(&self.digests);
        known.filter_map(|(block, digest)| digest.map(|digest| Record { block, digest })).collect()
    }
}

/// What is to be done with a journal that was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) enum ResumeDecision {
    Resume(Trust),
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

/// Whether the journal found is one of a transfer from `source_identity` into `part`, in the boot that is now.
pub(in super::super) fn check_journal(
    found: &Contents,
    source_identity: &SourceIdentity,
    part: PartIdentity,
    boot: Option<[u8; 16]>,
) -> ResumeDecision {
    let then = &found.header.source_identity;
    if then.remote != source_identity.remote {
        return ResumeDecision::StartOver("it was of another remote file");
    }
    // A device's number may be another each time it is mounted.
    if found.header.part.inode != part.inode {
        return ResumeDecision::StartOver("its journal was about another file");
    }
    if found.records.is_empty() {
        return ResumeDecision::StartOver("no block of it was complete");
    }
    if (then.manifest.size(), then.modified, then.version)
        != (source_identity.manifest.size(), source_identity.modified, source_identity.version)
    {
        return ResumeDecision::SourceChanged;
    }
    if then.manifest != source_identity.manifest {
        return ResumeDecision::StartOver("the server cuts the file into other blocks now");
    }
    let is_same_mount = boot == Some(found.header.boot) && found.header.part.device == part.device;
    ResumeDecision::Resume(if is_same_mount { Trust::Complete } else { Trust::AfterProof })
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
    let manifest = &found.header.source_identity.manifest;
    let mut recovered = Recovered::nothing(manifest, Outcome::Continued);
    for record in &found.records {
        recovered.add(manifest, record.block, record.digest);
    }
    let (n_recorded, of) = (recovered.done.len(), recovered.bytes);
    let len = part.metadata()?.len();
    // In memory nothing is reserved; elsewhere the file had room for all of it from the beginning.
    let least_room = if filesystem::is_tmpfs(part)? { of } else { manifest.size() };
    let mut holes = Holes::of(part, least_room)?;
    let mut buffer = Vec::new();
    let mut bytes = 0_u64;
    for Record { block, digest } in recovered.records(manifest) {
        if trust == Trust::AfterProof && watch(Checked { bytes, of }).is_break() {
            return Err(RecoverError::Stopped);
        }
        let range = manifest.range(block);
        let is_right = range.end() <= len
            // What cannot be read is fetched again.
            && ((trust == Trust::Complete && !holes.may_have_cut(range))
                || digest_of(part, manifest, block, &mut buffer).ok().flatten() == Some(digest));
        if !is_right {
            recovered.forget(manifest, block);
        }
        bytes = bytes.saturating_add(range.len());
    }
    let is_less = recovered.done.len() < n_recorded;
    Ok((recovered, is_less))
}

/// Whether no cut has taken bytes of `part`, in which each block has its digest: those that touch a hole are read back.
pub(in super::super) fn is_whole(
    part: &File,
    manifest: &Manifest,
    digests: &[Option<RangeDigest>],
) -> io::Result<bool> {
    let mut holes = Holes::of(part, manifest.size())?;
    let mut buffer = Vec::new();
    for (block, digest) in manifest.blocks().zip(digests) {
        if holes.may_have_cut(manifest.range(block))
            && digest_of(part, manifest, block, &mut buffer)? != *digest
        {
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
    manifest: &Manifest,
    block: BlockId,
    buffer: &mut Vec<u8>,
) -> io::Result<Option<RangeDigest>> {
    let range = manifest.range(block);
    let Some(mut hasher) = RangeHasher::new(manifest.size(), range) else { return Ok(None) };
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
