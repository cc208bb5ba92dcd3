//! Going on with a part file: what is there already, and the journal of what comes.

use super::{PartFile, PartState};
use crate::digest::RangeDigest;
use crate::error::TransferError;
use crate::manifest::Manifest;
use crate::sink::journal::{
    self, Found, Journal, Outcome, PartIdentity, RecoverError, Recovered, ResumeDecision, SourceIdentity,
    Trust, Watch, check_journal, recover,
};
use crate::sink::sidecar::is_named;

/// The journal of what comes, and what is there already.
type Begun = (Option<Journal>, Recovered);

/// Why a transfer cannot begin.
#[derive(Debug)]
pub(crate) enum BeginError {
    /// What is there is of another version of the same remote file; it stays.
    SourceChanged,
    /// Who watched put an end to it; what is there stays.
    Stopped,
    /// The part file or its journal cannot be worked with.
    Local(TransferError),
}

impl From<TransferError> for BeginError {
    fn from(error: TransferError) -> Self {
        Self::Local(error)
    }
}

impl PartFile {
    /// Finds out which blocks of the file are there already, and opens the journal for those that come.
    ///
    /// Once, before a store is opened. A file of one block has no journal: there would be nothing to go on with. Blocks the
    /// calling thread: after another boot everything that is there is read back, under the eyes of `watch`.
    ///
    /// # Errors
    /// [`BeginError::SourceChanged`] and [`BeginError::Stopped`] leave everything as it is.
    pub(crate) fn begin(
        &mut self,
        source_identity: &SourceIdentity,
        watch: &mut Watch<'_>,
    ) -> Result<Begun, BeginError> {
        let PartState::Found = self.state else { return self.start_fresh(source_identity, Outcome::Fresh) };
        let found = Found::read(&self.journal).map_err(|source| self.of_journal("read", source))?;
        let Some(found) = found else { return self.restart(source_identity, "its journal is damaged") };
        let part = journal::identity(&self.file)
            .map_err(|source| TransferError::local("inspect", &self.path, 0, source))?;
        match check_journal(found.contents(), source_identity, part, journal::boot_id()) {
            ResumeDecision::Resume(trust) => self.resume(source_identity, part, found, trust, watch),
            ResumeDecision::SourceChanged => Err(BeginError::SourceChanged),
            ResumeDecision::StartOver(why) => self.restart(source_identity, why),
        }
    }

    fn restart(&mut self, source_identity: &SourceIdentity, why: &'static str) -> Result<Begun, BeginError> {
        self.start_over()?;
        self.start_fresh(source_identity, Outcome::StartedOver { why })
    }

    fn start_fresh(
        &mut self,
        source_identity: &SourceIdentity,
        outcome: Outcome,
    ) -> Result<Begun, BeginError> {
        let journal = if source_identity.manifest.n_blocks() > 1 {
            let journal = journal::identity(&self.file)
                .and_then(|part| Journal::create(&self.journal, source_identity, part))
                .map_err(|source| self.of_journal("create", source))?;
            self.state = PartState::Journaled(journal.clone());
            Some(journal)
        } else {
            None
        };
        Ok((journal, Recovered::nothing(&source_identity.manifest, outcome)))
    }

    fn resume(
        &mut self,
        source_identity: &SourceIdentity,
        part: PartIdentity,
        found: Found,
        trust: Trust,
        watch: &mut Watch<'_>,
    ) -> Result<Begun, BeginError> {
        let of_part = |source| TransferError::local("read back", &self.path, 0, source);
        let size = source_identity.manifest.size();
        if self.file.metadata().map_err(of_part)?.len() > size {
            self.file.set_len(size).map_err(of_part)?;
        }
        let recovered = recover(found.contents(), &self.file, trust, watch);
        let (recovered, is_less) = recovered.map_err(|error| match error {
            RecoverError::Stopped => BeginError::Stopped,
            RecoverError::Io(source) => of_part(source).into(),
        })?;
        // What is forgotten must be forgotten by the journal too, before its place has bytes again.
        let journal = if is_less || trust == Trust::AfterProof {
            Journal::replace(
                &self.journal,
                source_identity,
                part,
                &recovered.records(&source_identity.manifest),
            )
        } else {
            Journal::resume(found, &self.journal)
        }
        .map_err(|source| self.of_journal("go on with", source))?;
        self.state = PartState::Journaled(journal.clone());
        Ok((Some(journal), recovered))
    }

    /// The first byte that an earlier transfer has not recorded, or 0 if nothing is known of that.
    pub(crate) fn first_missing(&self) -> u64 {
        let PartState::Found = self.state else { return 0 };
        let found = Found::read(&self.journal).ok().flatten();
        found.map_or(0, |found| found.contents().first_missing())
    }

    /// Whether it stays when it is dropped, to be gone on with.
    pub(crate) fn is_resumable(&self) -> bool {
        match &self.state {
            PartState::Found => true,
            PartState::Journaled(journal) => journal.has_records() && is_named(&self.file, &self.path),
            PartState::Nothing | PartState::Published => false,
        }
    }

    /// Fails if another process has cut the file, in which each block has its digest. Reads back what may have been cut.
    pub(crate) fn check_whole(
        &self,
        manifest: &Manifest,
        digests: &[Option<RangeDigest>],
    ) -> Result<(), TransferError> {
        let is_whole = journal::is_whole(&self.file, manifest, digests);
        if is_whole.map_err(|source| TransferError::local("read back", &self.path, 0, source))? {
            Ok(())
        } else {
            Err(self.taken_away("publish"))
        }
    }

    /// Whoever goes on with what is there proves all of it: another process has meddled with it, or its disk fails.
    pub(crate) fn require_rehash(&self) {
        if let PartState::Journaled(journal) = &self.state {
            // What cannot be written to cannot be removed either; the holes that a cut leaves are found all the same.
            let _ = journal.require_rehash();
        }
    }

    /// Throws away what is there: everything comes anew, and perhaps without a journal.
    pub(crate) fn start_over(&mut self) -> Result<(), TransferError> {
        // In this order: records without bytes would be a lie.
        journal::remove_all(&self.journal).map_err(|source| self.of_journal("remove", source))?;
        self.state = PartState::Nothing;
        self.file.set_len(0).map_err(|source| TransferError::local("empty", &self.path, 0, source))
    }

    /// Removes the part file and its journal, whatever they are state.
    pub(crate) fn discard(mut self) -> Result<(), TransferError> {
        self.start_over()
    }

    fn of_journal(&self, action: &'static str, source: std::io::Error) -> TransferError {
        TransferError::local(action, &self.journal, 0, source)
    }
}
