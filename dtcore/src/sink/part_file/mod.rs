//! The part file: a transfer writes to a file next to the output, which replaces the output at the end.
//!
//! The part file's name is derived from the output's, so that a later transfer finds it and resumes it or removes it, and part
//! files do not pile up. Its lock excludes a second transfer to the same output.

mod attributes;
mod copy;
mod lock;
mod naming;
mod publish;
mod replacing;
mod resume;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::sink::journal::{self, Journal};
use crate::sink::sidecar::{is_named, mark};
pub(crate) use attributes::{Attributes, nanoseconds, system_time};
pub(crate) use lock::Exclusion;
use lock::{ClaimedFile, StalePartFile, copy_permissions, create_locked, is_locked};
pub(crate) use naming::{Links, folder_of, is_sidecar_name, sidecar_name};
use naming::{journal_path, part_path, resolve};
pub(crate) use publish::publish;
pub(crate) use resume::{BeginError, Begun, Proof};

/// Whether an existing output is replaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Clobber {
    /// Yes, when the new one is complete and verified.
    #[default]
    Replace,
    /// No, the transfer fails.
    Refuse,
}

/// Whether the part file of an earlier transfer to the same output is resumed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Resume {
    /// Yes, if its journal allows it.
    #[default]
    Allowed,
    /// No, it is removed.
    Refused,
}

/// A file next to the output, locked where that is possible.
///
/// If it is dropped before it is published, it stays if its journal has a record, and is removed otherwise.
#[derive(Debug)]
pub(crate) struct PartFile {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
    journal: PathBuf,
    output: PathBuf,
    clobber: Clobber,
    /// The output, if it is a mount point and so written in place at the end.
    pub(crate) in_place: Option<File>,
    pub(crate) exclusion: Exclusion,
    /// Whether a new output may have to lose rights to the umask.
    may_be_masked: bool,
    state: PartState,
}

/// What would be lost with a part file.
#[derive(Debug)]
enum PartState {
    /// Nothing.
    Empty,
    /// The blocks of an earlier transfer; not inspected yet.
    Stale,
    /// The blocks that the journal records.
    Journaled(Journal),
    /// It has become the output.
    Published,
}

impl PartFile {
    /// Creates the part file for `output`, and removes the one of an earlier transfer.
    #[cfg(test)]
    pub(crate) fn create(output: &Path, clobber: Clobber) -> Result<Self, Failure> {
        Self::lock(output, Links::Followed, clobber, Resume::Refused)
    }

    /// Creates and locks the part file for `output`, or takes over the one of an earlier transfer if that has a journal.
    ///
    /// A part file that is taken over is not changed before [`begin`](Self::begin) or [`clear`](Self::clear).
    ///
    /// # Errors
    /// [`Failure::OutputExists`], [`Failure::OutputInUse`], or a local file error.
    pub(crate) fn lock(
        output: &Path,
        links: Links,
        clobber: Clobber,
        resume: Resume,
    ) -> Result<Self, Failure> {
        let output = resolve(output, links, clobber)?;
        let mut in_place = replacing::in_place(&output)?;
        let (path, journal) = (part_path(&output), journal_path(&output));
        // The output itself may be the part file of another transfer.
        if is_locked(&output) {
            return Err(Failure::OutputInUse { path: output });
        }
        let journal_error = |action| {
            let path = journal.clone();
            move |source| Failure::LocalFile { action, path, source }
        };
        // Each further round means that another transfer created or removed the part file at the same moment.
        for _ in 0..100 {
            let locked = match create_locked(&path) {
                Ok(claimed) => claimed.map(|claimed| (claimed, PartState::Empty)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    let Some(stale) = StalePartFile::lock(&path, &journal, &output)? else { continue };
                    let has_journal = journal::exists(&journal).map_err(journal_error("take over"))?;
                    if resume == Resume::Allowed && has_journal {
                        let claimed = stale
                            .take_over()
                            .map_err(|error| Failure::local("take over", &path, 0, error))?;
                        claimed.map(|claimed| (claimed, PartState::Stale))
                    } else {
                        // In this order: a new part file may get the same inode, and the journal would describe it.
                        journal::remove_all(&journal).map_err(journal_error("remove"))?;
                        stale.remove()?;
                        None
                    }
                }
                Err(error) => return Err(Failure::local("create", path, 0, error)),
            };
            let Some((ClaimedFile { file, exclusion, may_be_masked }, state)) = locked else { continue };
            let in_place = in_place.take();
            let part = Self {
                file,
                path,
                journal: journal.clone(),
                output,
                clobber,
                in_place,
                exclusion,
                may_be_masked,
                state,
            };
            // The previous holder of the lock may have published in the meantime.
            if clobber == Clobber::Refuse && fs::symlink_metadata(&part.output).is_ok() {
                return Err(Failure::OutputExists { path: part.output.clone() });
            }
            if matches!(part.state, PartState::Empty) {
                journal::remove_all(&journal).map_err(journal_error("remove"))?;
            }
            part.prepare().map_err(|error| Failure::local("prepare", &part.path, 0, error))?;
            return Ok(part);
        }
        Err(Failure::OutputInUse { path: output })
    }

    /// Marks the file and gives it the permissions of the output that it will replace.
    fn prepare(&self) -> io::Result<()> {
        mark(&self.file);
        copy_permissions(&self.output, &self.file)
    }

    /// Fails if the part file was removed or renamed, or another file has its name.
    pub(crate) fn check_name(&self) -> Result<(), Failure> {
        if is_named(&self.file, &self.path) { Ok(()) } else { Err(self.changed_by_other("use")) }
    }

    fn changed_by_other(&self, action: &'static str) -> Failure {
        self.require_rehash();
        // The same kind as the error of a store whose file was truncated: it is unknown which bytes are left.
        let text = "another process has removed, replaced or truncated it";
        let source = io::Error::new(io::ErrorKind::UnexpectedEof, text);
        Failure::LocalFile { action, path: self.path.clone(), source }
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        if self.is_resumable() {
            return;
        }
        let journal = match &self.state {
            PartState::Published => return,
            PartState::Journaled(journal) => Some(journal),
            PartState::Stale | PartState::Empty => None,
        };
        let is_named = is_named(&self.file, &self.path);
        // Errors cannot be reported here. A part file that was moved away keeps its journal, as it may be moved back.
        if is_named || self.file.metadata().is_ok_and(|found| found.nlink() == 0) {
            let _ = journal.map(Journal::remove);
        }
        if is_named {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether a published output is on the disk when the transfer reports success.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Durability {
    /// No, the system writes it back later.
    #[default]
    Cached,
    /// Yes, it survives a power cut.
    Synced,
}
