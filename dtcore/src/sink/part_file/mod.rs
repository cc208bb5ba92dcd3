//! The part file: everything is received into a file beside the output, which takes the output's place at the end.
//!
//! The part file's name follows from the output's, so that what an earlier transfer left is found and gone on with, or
//! removed, never heaped up. A lock on it keeps a second transfer to the same output away.

mod lock;
mod naming;
mod resume;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::error::TransferError;
use crate::sink::journal::{self, Journal};
use crate::sink::sidecar::{is_named, mark};
use crate::sys::filesystem;
use lock::{StalePartFile, create_locked, is_locked, protect_like};
use naming::{folder_of, journal_path, part_path, resolve};
pub(crate) use resume::BeginError;

/// What becomes of an output that exists already.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Clobber {
    /// It is replaced when the new one is complete and verified.
    #[default]
    Replace,
    /// It stays, and the transfer fails.
    Refuse,
}

/// What becomes of what an earlier transfer to the same output left.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Resume {
    /// It is gone on with, if its journal says that it can be.
    #[default]
    Allowed,
    /// It is removed.
    Refused,
}

/// A locked file beside the output.
///
/// When it is dropped without being published, it stays if its journal has a record, and is removed otherwise.
#[derive(Debug)]
pub(crate) struct PartFile {
    file: File,
    path: PathBuf,
    journal: PathBuf,
    output: PathBuf,
    clobber: Clobber,
    state: PartState,
}

/// What there is to lose with a part file.
#[derive(Debug)]
enum PartState {
    /// Nothing.
    Nothing,
    /// What an earlier transfer left, and nobody has looked at yet.
    Found,
    /// What the journal records.
    Journaled(Journal),
    /// It is a part file no more.
    Published,
}

impl PartFile {
    /// Creates the part file for `output`, in the place of what an earlier transfer left.
    ///
    /// # Errors
    /// [`TransferError::OutputExists`], [`TransferError::OutputInUse`], or a local file error.
    #[cfg(test)]
    pub(crate) fn create(output: &Path, clobber: Clobber) -> Result<Self, TransferError> {
        Self::claim(output, clobber, Resume::Refused)
    }

    /// Creates the part file for `output`, or takes over the one that an earlier transfer left beside its journal.
    ///
    /// What was taken over stays as it was until [`begin`](Self::begin) or [`start_over`](Self::start_over).
    ///
    /// # Errors
    /// [`TransferError::OutputExists`], [`TransferError::OutputInUse`], or a local file error.
    pub(crate) fn claim(output: &Path, clobber: Clobber, resume: Resume) -> Result<Self, TransferError> {
        let output = resolve(output, clobber)?;
        let (path, journal) = (part_path(&output), journal_path(&output));
        // The output itself may be the part file of a transfer to somewhere else.
        if is_locked(&output) {
            return Err(TransferError::OutputInUse { path: output });
        }
        let of_journal = |action| {
            let path = journal.clone();
            move |source| TransferError::LocalFile { action, path, source }
        };
        // Each further round means that another transfer came or went at the same moment.
        for _ in 0..100 {
            let claimed = match create_locked(&path) {
                Ok(file) => file.map(|file| (file, PartState::Nothing)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    let Some(left) = StalePartFile::lock(&path, &journal, &output)? else { continue };
                    let has_journal = journal::is_there(&journal).map_err(of_journal("take over"))?;
                    if resume == Resume::Allowed && has_journal {
                        let file = left
                            .take_over()
                            .map_err(|error| TransferError::local("take over", &path, 0, error))?;
                        file.map(|file| (file, PartState::Found))
                    } else {
                        // In this order: a new part file may get the number of this one, by which journals know it.
                        journal::remove_all(&journal).map_err(of_journal("remove"))?;
                        left.remove()?;
                        None
                    }
                }
                Err(error) => return Err(TransferError::local("create", path, 0, error)),
            };
            let Some((file, state)) = claimed else { continue };
            let part = Self { file, path, journal: journal.clone(), output, clobber, state };
            // Whoever held the name until now may have been about to publish.
            if clobber == Clobber::Refuse && fs::symlink_metadata(&part.output).is_ok() {
                return Err(TransferError::OutputExists { path: part.output.clone() });
            }
            if matches!(part.state, PartState::Nothing) {
                journal::remove_all(&journal).map_err(of_journal("remove"))?;
            }
            part.prepare().map_err(|error| TransferError::local("prepare", &part.path, 0, error))?;
            return Ok(part);
        }
        Err(TransferError::OutputInUse { path: output })
    }

    /// Marks the file as ours and protects it like the output that it will replace.
    fn prepare(&self) -> io::Result<()> {
        mark(&self.file);
        protect_like(&self.output, &self.file)
    }

    /// The file to receive into.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Where the part file is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The folder in which the part file and the output are.
    pub(crate) fn folder(&self) -> &Path {
        folder_of(&self.path)
    }

    /// Cuts the file to `len` bytes and puts it in the output's place, atomically.
    ///
    /// With [`Durability::Synced`] the bytes and the name are on the disk before this returns.
    pub(crate) fn publish(mut self, len: u64, durability: Durability) -> Result<PathBuf, TransferError> {
        let local = |action, path: &Path| {
            let path = path.to_owned();
            move |source| TransferError::local(action, path, len, source)
        };
        if self.file.metadata().map_err(local("inspect", &self.path))?.len() < len {
            return Err(self.taken_away("publish"));
        }
        self.file.set_len(len).map_err(local("cut to length", &self.path))?;
        // Some file systems report a full disk or a quota only when the bytes are written out.
        if durability == Durability::Synced
            || filesystem::defers_errors(&self.file).map_err(local("inspect", &self.path))?
        {
            self.file.sync_all().map_err(local("sync", &self.path))?;
        }
        // The digest was that of the open file, and a name can be moved to another one.
        if !is_named(&self.file, &self.path) {
            return Err(self.taken_away("publish"));
        }
        self.rename()?;
        if !is_named(&self.file, &self.output) {
            return Err(self.taken_away("publish"));
        }
        let state = std::mem::replace(&mut self.state, PartState::Published);
        if durability == Durability::Synced {
            let folder = folder_of(&self.output);
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(local("sync", folder))?;
        }
        if let PartState::Journaled(journal) = state {
            // The output is there. A journal that is left is about no part file, and is removed with the next transfer.
            let _ = journal.remove();
        }
        Ok(self.output.clone())
    }

    /// Fails if the part file's name is gone, or is another file's.
    pub(crate) fn check_name(&self) -> Result<(), TransferError> {
        if is_named(&self.file, &self.path) { Ok(()) } else { Err(self.taken_away("go on with")) }
    }

    fn taken_away(&self, action: &'static str) -> TransferError {
        self.require_rehash();
        // Of the same kind as the error of a store whose file was cut: nobody knows how much of it is left.
        let what = "another process removed, replaced or truncated it meanwhile";
        let source = io::Error::new(io::ErrorKind::UnexpectedEof, what);
        TransferError::LocalFile { action, path: self.path.clone(), source }
    }

    fn rename(&self) -> Result<(), TransferError> {
        let result = match self.clobber {
            Clobber::Replace => fs::rename(&self.path, &self.output),
            Clobber::Refuse => {
                match renameat_with(CWD, &self.path, CWD, &self.output, RenameFlags::NOREPLACE) {
                    // This file system does not know the flag; a link does not replace either.
                    Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                        fs::hard_link(&self.path, &self.output).and_then(|()| fs::remove_file(&self.path))
                    }
                    result => result.map_err(io::Error::from),
                }
            }
        };
        result.map_err(|source| {
            if source.kind() == io::ErrorKind::AlreadyExists {
                TransferError::OutputExists { path: self.output.clone() }
            } else {
                TransferError::local("rename into place", &self.output, 0, source)
            }
        })
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
            PartState::Found | PartState::Nothing => None,
        };
        let is_named = is_named(&self.file, &self.path);
        // Nobody is left to hear of a failure. What was moved away has its journal, should it be moved back.
        if is_named || self.file.metadata().is_ok_and(|found| found.nlink() == 0) {
            let _ = journal.map(Journal::remove);
        }
        if is_named {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether a published output survives a power cut at once, or when the system gets round to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Durability {
    /// The system writes it out in its own time.
    #[default]
    Cached,
    /// It is on the disk before the transfer reports success.
    Synced,
}
