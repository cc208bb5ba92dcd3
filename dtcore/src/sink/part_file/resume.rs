//! Going on with a part file: what is there already, and the journal of what comes.

use super::{PartFile, Worth};
use crate::digest::RangeDigest;
use crate::error::TransferError;
use crate::manifest::BlockPlan;
use crate::sink::journal::{
    self, Found, Journal, Origin, Outcome, PartIdentity, RecoverError, Recovered, Trust, Verdict, Watch,
    judge, recover,
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
    pub(crate) fn begin(&mut self, origin: &Origin, watch: &mut Watch<'_>) -> Result<Begun, BeginError> {
        let Worth::Found = self.worth else { return self.begin_anew(origin, Outcome::Fresh) };
        let found = Found::read(&self.journal).map_err(|source| self.of_journal("read", source))?;
        let Some(found) = found else { return self.begin_over(origin, "its journal is damaged") };
        let part = journal::identity(&self.file)
            .map_err(|source| TransferError::local("inspect", &self.path, 0, source))?;
        match judge(found.contents(), origin, part, journal::boot_id()) {
            Verdict::GoOn(trust) => self.go_on(origin, part, found, trust, watch),
            Verdict::SourceChanged => Err(BeginError::SourceChanged),
            Verdict::StartOver(why) => self.begin_over(origin, why),
        }
    }

    fn begin_over(&mut self, origin: &Origin, why: &'static str) -> Result<Begun, BeginError> {
        self.start_over()?;
        self.begin_anew(origin, Outcome::StartedOver { why })
    }

    fn begin_anew(&mut self, origin: &Origin, outcome: Outcome) -> Result<Begun, BeginError> {
        let journal = if origin.plan.n_blocks() > 1 {
            let journal = journal::identity(&self.file)
                .and_then(|part| Journal::create(&self.journal, origin, part))
                .map_err(|source| self.of_journal("create", source))?;
            self.worth = Worth::Journaled(journal.clone());
            Some(journal)
        } else {
            None
        };
        Ok((journal, Recovered::nothing(&origin.plan, outcome)))
    }

    fn go_on(
        &mut self,
        origin: &Origin,
        part: PartIdentity,
        found: Found,
        trust: Trust,
        watch: &mut Watch<'_>,
    ) -> Result<Begun, BeginError> {
        let of_part = |source| TransferError::local("read back", &self.path, 0, source);
        let size = origin.plan.size();
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
            Journal::replace(&self.journal, origin, part, &recovered.records(&origin.plan))
        } else {
            Journal::go_on(found, &self.journal)
        }
        .map_err(|source| self.of_journal("go on with", source))?;
        self.worth = Worth::Journaled(journal.clone());
        Ok((Some(journal), recovered))
    }

    /// Whether it stays when it is dropped, to be gone on with.
    pub(crate) fn is_resumable(&self) -> bool {
        match &self.worth {
            Worth::Found => true,
            Worth::Journaled(journal) => journal.has_records() && is_named(&self.file, &self.path),
            Worth::Nothing | Worth::Published => false,
        }
    }

    /// Fails if another process has cut the file, in which each block has its digest. Reads back what may have been cut.
    pub(crate) fn check_whole(
        &self,
        plan: &BlockPlan,
        digests: &[Option<RangeDigest>],
    ) -> Result<(), TransferError> {
        let is_whole = journal::is_whole(&self.file, plan, digests);
        if is_whole.map_err(|source| TransferError::local("read back", &self.path, 0, source))? {
            Ok(())
        } else {
            Err(self.taken_away("publish"))
        }
    }

    /// Whoever goes on with what is there proves all of it: another process has meddled with it, or its disk fails.
    pub(crate) fn distrust(&self) {
        if let Worth::Journaled(journal) = &self.worth {
            // What cannot be written to cannot be removed either; the holes that a cut leaves are found all the same.
            let _ = journal.distrust();
        }
    }

    /// Throws away what is there: everything comes anew, and perhaps without a journal.
    pub(crate) fn start_over(&mut self) -> Result<(), TransferError> {
        // In this order: records without bytes would be a lie.
        journal::remove_all(&self.journal).map_err(|source| self.of_journal("remove", source))?;
        self.worth = Worth::Nothing;
        self.file.set_len(0).map_err(|source| TransferError::local("empty", &self.path, 0, source))
    }

    /// Removes the part file and its journal, whatever they are worth.
    pub(crate) fn discard(mut self) -> Result<(), TransferError> {
        self.start_over()
    }

    fn of_journal(&self, action: &'static str, source: std::io::Error) -> TransferError {
        TransferError::local(action, &self.journal, 0, source)
    }
}
