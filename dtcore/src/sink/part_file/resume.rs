//! Resuming a part file: the blocks that are in place, and the journal for the others.

use std::path::Path;
use std::{fs, io};

use super::copy::PrivateCopy;
use super::lock::{ClaimedFile, Exclusion, create_locked};
use super::{PartFile, PartState};
use crate::digest::RangeDigest;
use crate::failure::{Failure, is_disk_full};
use crate::manifest::{ByteRange, Manifest};
use crate::sink::journal::{
    self, Journal, Outcome, Recovered, ResumeDecision, SourceChange, SourceIdentity, StaleJournal, Trust,
    Watch, check_journal, recover,
};
use crate::sink::sidecar::is_named;

/// How a transfer starts.
#[derive(Debug)]
pub(crate) enum Begun {
    /// With the journal for new blocks, and the blocks that are in place.
    Ready(Option<Journal>, Recovered),
    /// Not before the remote file is verified to have these blocks. Nothing is changed.
    Unverified(Recovered),
}

/// What is known of the blocks of a remote file that may have changed since they were saved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Proof {
    /// Nothing yet.
    Pending,
    /// The remote file has all of these, which [`Begun::Unverified`] has named.
    Verified(Recovered),
    /// It has another block in place of at least one.
    Refuted,
}

/// Why a transfer cannot start.
#[derive(Debug)]
pub(crate) enum BeginError {
    /// The part file belongs to another version of the same remote file; it is kept.
    SourceChanged,
    /// The part file or its journal cannot be used, or the callback cancelled it, which changes nothing.
    Local(Failure),
}

impl From<Failure> for BeginError {
    fn from(error: Failure) -> Self {
        Self::Local(error)
    }
}

impl PartFile {
    /// Finds the blocks that are in place, and opens the journal for the others.
    ///
    /// Called before a store is opened, and again with the result if something must be verified first. A file of one block has no
    /// journal, as it could not be resumed. Blocks the calling thread: after a reboot all blocks in place are rehashed, which `watch`
    /// observes.
    ///
    /// # Errors
    /// [`BeginError::SourceChanged`] and [`Failure::Cancelled`] change nothing.
    pub(crate) fn begin(
        &mut self,
        source_identity: &SourceIdentity,
        proof: Proof,
        watch: &mut Watch<'_>,
    ) -> Result<Begun, BeginError> {
        let PartState::Stale = self.state else { return self.start_fresh(source_identity, Outcome::Fresh) };
        let stale = StaleJournal::read(&self.journal)
            .map_err(|source| journal_error(&self.journal, "read", source))?;
        let Some(stale) = stale else { return self.restart(source_identity, "the journal is damaged") };
        let part = journal::part_identity(&self.file)
            .map_err(|source| Failure::local("inspect", &self.path, 0, source))?;
        match check_journal(stale.contents(), source_identity, part, journal::boot_id()) {
            ResumeDecision::Resume(trust) => self.resume(source_identity, stale, trust, watch),
            ResumeDecision::Restart(reason) => self.restart(source_identity, reason),
            ResumeDecision::Prove(change) => {
                begin_changed(self, source_identity, &stale, change, proof, watch)
            }
        }
    }

    fn restart(&mut self, identity: &SourceIdentity, reason: &'static str) -> Result<Begun, BeginError> {
        self.clear()?;
        self.start_fresh(identity, Outcome::Restarted { reason })
    }

    fn start_fresh(&mut self, identity: &SourceIdentity, outcome: Outcome) -> Result<Begun, BeginError> {
        let journal = if identity.manifest.n_blocks() > 1 {
            let journal = created_journal(self, identity)?;
            self.state = PartState::Journaled(journal.clone());
            Some(journal)
        } else {
            None
        };
        Ok(Begun::Ready(journal, Recovered::empty(&identity.manifest, outcome)))
    }

    fn resume(
        &mut self,
        source_identity: &SourceIdentity,
        stale: StaleJournal,
        trust: Trust,
        watch: &mut Watch<'_>,
    ) -> Result<Begun, BeginError> {
        let part_error = |source| Failure::local("read back", &self.path, 0, source);
        let size = source_identity.manifest.size();
        let copy = match self.exclusion {
            Exclusion::Locked => None,
            // The transfer that has written it may go on writing to it.
            Exclusion::Absent => {
                let copied =
                    PrivateCopy::of_blocks(&self.file, (&self.path, &self.output), stale.contents(), watch)?;
                Some(copied.ok_or(Failure::Cancelled)?)
            }
        };
        let (file, trust) = match &copy {
            None => (&self.file, trust),
            Some(copy) => (copy.file(), Trust::AfterRehash),
        };
        let recovered = recover(stale.contents(), file, trust, watch);
        let (recovered, is_less) = recovered.map_err(part_error)?.ok_or(Failure::Cancelled)?;
        if is_less && recovered.bytes == 0 {
            drop(copy);
            return self.restart(source_identity, "no block of the partial file is intact");
        }
        if let Some(copy) = copy {
            self.file = copy.replace(&self.path)?;
        } else if self.file.metadata().map_err(part_error)?.len() > size {
            self.file.set_len(size).map_err(part_error)?;
        }
        let part = journal::part_identity(&self.file)
            .map_err(|source| Failure::local("inspect", &self.path, 0, source))?;
        let records = recovered.records(&source_identity.manifest);
        let journal = match Journal::replace(&self.journal, source_identity, part, &records) {
            // The journal must forget invalid blocks before the file is extended over them again. If there is nothing to forget,
            // the old one will do on a full disk.
            Err(error) if is_disk_full(&error) && !is_less && trust == Trust::Full => {
                Journal::resume(stale, &self.journal)
            }
            // A transfer that has lost the part file to this one finds that out by the new journal.
            replaced => replaced,
        }
        .map_err(|source| journal_error(&self.journal, "resume", source))?;
        self.state = PartState::Journaled(journal.clone());
        Ok(Begun::Ready(Some(journal), recovered))
    }

    /// The first bytes that an earlier transfer has not recorded, or the range of any file if nothing is known of that.
    pub(crate) fn first_gap(&self) -> ByteRange {
        let stale = match self.state {
            PartState::Stale => StaleJournal::read(&self.journal).ok().flatten(),
            PartState::Empty | PartState::Journaled(_) | PartState::Published => None,
        };
        stale.map_or(ByteRange::new(0, u64::MAX), |stale| stale.contents().first_gap())
    }

    /// Whether it stays when it is dropped, to be resumed later.
    pub(crate) fn is_resumable(&self) -> bool {
        match &self.state {
            PartState::Stale => true,
            PartState::Journaled(journal) => journal.has_records() && is_named(&self.file, &self.path),
            PartState::Empty | PartState::Published => false,
        }
    }

    /// Fails if another process has changed the file, in which all blocks were verified.
    ///
    /// Rehashes blocks next to holes, and all blocks if another transfer has taken over the part file, and may write to it.
    pub(crate) fn check_intact(
        &self,
        manifest: &Manifest,
        digests: &[Option<RangeDigest>],
    ) -> Result<(), Failure> {
        let is_intact = match &self.state {
            PartState::Journaled(journal) if !journal.is_current() => {
                journal::has_all_blocks(&self.file, manifest, digests)
            }
            PartState::Journaled(_) | PartState::Stale | PartState::Empty | PartState::Published => {
                journal::is_intact(&self.file, manifest, digests)
            }
        };
        if is_intact.map_err(|source| Failure::local("read back", &self.path, 0, source))? {
            Ok(())
        } else {
            Err(self.changed_by_other("publish"))
        }
    }

    /// Makes the next transfer rehash all blocks, as another process has changed the file or its disk fails.
    pub(crate) fn require_rehash(&self) {
        if let PartState::Journaled(journal) = &self.state {
            // If this fails, a truncation is still found by its holes.
            let _ = journal.require_rehash();
        }
    }

    /// Removes all blocks and the journal, for a transfer from the start, perhaps without a journal.
    ///
    /// It gets a new file: where locks do not keep it away, the transfer that has written the old one may go on writing to it.
    pub(crate) fn clear(&mut self) -> Result<(), Failure> {
        if let PartState::Empty = self.state {
            return Ok(());
        }
        self.remove_journal()?;
        if !is_named(&self.file, &self.path) {
            return Err(self.changed_by_other("start over with"));
        }
        let ClaimedFile { file, exclusion, may_be_masked } = replaced(&self.path, &self.output)?;
        (self.file, self.exclusion, self.may_be_masked) = (file, exclusion, may_be_masked);
        self.prepare().map_err(|error| Failure::local("prepare", &self.path, 0, error))
    }

    /// As [`clear`](Self::clear), unless a block of an earlier transfer would be lost.
    pub(crate) fn clear_unless_saved(&mut self) -> Result<(), Failure> {
        if matches!(self.state, PartState::Stale) && has_records(&self.journal) {
            let source = io::Error::other(SAVED);
            return Err(Failure::LocalFile { action: "replace", path: self.path.clone(), source });
        }
        self.clear()
    }

    /// Removes the part file and its journal in any state.
    pub(crate) fn discard(mut self) -> Result<(), Failure> {
        self.remove_journal()
    }

    /// Removes the journal first: a record without its bytes would be wrong.
    fn remove_journal(&mut self) -> Result<(), Failure> {
        journal::remove_all(&self.journal)
            .map_err(|source| journal_error(&self.journal, "remove", source))?;
        self.state = PartState::Empty;
        Ok(())
    }
}

/// The journal of a part file that is new.
fn created_journal(part: &PartFile, identity: &SourceIdentity) -> Result<Journal, Failure> {
    part.check_name()?;
    let create =
        || journal::part_identity(&part.file).and_then(|file| Journal::create(&part.journal, identity, file));
    let created = match create() {
        // Where nothing excludes it, one that has lost this part file's name has created it a moment ago.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && part.exclusion == Exclusion::Absent => {
            journal::remove_all(&part.journal).and_then(|()| create())
        }
        created => created,
    };
    created.map_err(|source| journal_error(&part.journal, "create", source))
}

/// Begins a transfer of a remote file that may have changed since blocks of it were saved.
fn begin_changed(
    part: &mut PartFile,
    source_identity: &SourceIdentity,
    stale: &StaleJournal,
    change: SourceChange,
    proof: Proof,
    watch: &mut Watch<'_>,
) -> Result<Begun, BeginError> {
    let claimed = match proof {
        Proof::Verified(recovered) => {
            let records = recovered.records(&source_identity.manifest);
            let journal = journal::part_identity(&part.file)
                .and_then(|file| Journal::replace(&part.journal, source_identity, file, &records))
                .map_err(|source| journal_error(&part.journal, "resume", source))?;
            part.state = PartState::Journaled(journal.clone());
            return Ok(Begun::Ready(Some(journal), recovered));
        }
        Proof::Pending => claimed(part, source_identity, stale, change.trust, watch)?,
        Proof::Refuted => None,
    };
    match claimed {
        Some(claimed) => Ok(Begun::Unverified(claimed)),
        None if change.is_same_name => Err(BeginError::SourceChanged),
        None => part.restart(source_identity, "the partial file belongs to a different remote file"),
    }
}

/// The blocks in the part file that the remote file has too if it has only grown; `None` if there are none.
fn claimed(
    part: &PartFile,
    source_identity: &SourceIdentity,
    stale: &StaleJournal,
    trust: Trust,
    watch: &mut Watch<'_>,
) -> Result<Option<Recovered>, BeginError> {
    let (now, then) = (&source_identity.manifest, &stale.contents().header.source_identity.manifest);
    let has_grown_at_most = now.block_size() == then.block_size() && now.size() >= then.size();
    // A file that others may write to would have to be copied before, perhaps for nothing.
    if part.exclusion == Exclusion::Absent || !has_grown_at_most {
        return Ok(None);
    }
    let recovered = recover(stale.contents(), &part.file, trust, watch)
        .map_err(|source| Failure::local("read back", &part.path, 0, source))?;
    let (recovered, _) = recovered.ok_or(Failure::Cancelled)?;
    let carried = recovered.carried(then, now);
    Ok(Some(carried).filter(|carried| carried.bytes > 0))
}

/// Why protocol 1 does not start over.
const SAVED: &str = "it holds verified blocks, which protocol 1 cannot resume; use protocol 2, or start over with --no-resume";

/// Whether the journal at `path` records a block.
fn has_records(path: &Path) -> bool {
    StaleJournal::read(path)
        .is_ok_and(|stale| stale.is_some_and(|stale| !stale.contents().records.is_empty()))
}

/// Removes the part file at `path`, and creates and locks a new one.
fn replaced(path: &Path, output: &Path) -> Result<ClaimedFile, Failure> {
    fs::remove_file(path).map_err(|source| Failure::local("remove", path, 0, source))?;
    let claimed = match create_locked(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(Failure::local("create", path, 0, error));
        }
        created => created.ok().flatten(),
    };
    claimed.ok_or_else(|| Failure::OutputInUse { path: output.to_owned() })
}

fn journal_error(path: &Path, action: &'static str, source: io::Error) -> Failure {
    Failure::local(action, path, 0, source)
}
