//! The part file: everything is received into a file beside the output, which takes the output's place at the end.
//!
//! The part file's name follows from the output's, so that what a killed transfer left is found and reused, never
//! heaped up. A lock on it keeps a second transfer to the same output away.

mod claim;
mod naming;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::space;
use crate::error::TransferError;
use claim::{create_locked, is_locked, is_named, mark, protect_like, remove_leftover};
use naming::{folder_of, part_path, resolve};

/// What becomes of an output that exists already.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Clobber {
    /// It is replaced when the new one is complete and verified.
    #[default]
    Replace,
    /// It stays, and the transfer fails.
    Refuse,
}

/// A locked file beside the output; removed when dropped, unless it was published.
#[derive(Debug)]
pub(crate) struct PartFile {
    file: File,
    path: PathBuf,
    output: PathBuf,
    clobber: Clobber,
    published: bool,
}

impl PartFile {
    /// Creates the part file for `output`, in the place of one that a killed transfer left.
    ///
    /// # Errors
    /// [`TransferError::OutputExists`], [`TransferError::OutputInUse`], or a local file error.
    pub(crate) fn create(output: &Path, clobber: Clobber) -> Result<Self, TransferError> {
        let output = resolve(output, clobber)?;
        let path = part_path(&output);
        // The output itself may be the part file of a transfer to somewhere else.
        if is_locked(&output) {
            return Err(TransferError::OutputInUse { path: output });
        }
        // Each further round means that another transfer came or went at the same moment.
        for _ in 0..100 {
            match create_locked(&path) {
                Ok(Some(file)) => {
                    let part = Self { file, path, output, clobber, published: false };
                    part.prepare().map_err(|error| TransferError::local("prepare", &part.path, 0, error))?;
                    return Ok(part);
                }
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    remove_leftover(&path, &output)?;
                }
                Err(error) => return Err(TransferError::local("create", path, 0, error)),
            }
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
            return Err(self.taken_away());
        }
        self.file.set_len(len).map_err(local("cut to length", &self.path))?;
        // Some file systems report a full disk or a quota only when the bytes are written out.
        if durability == Durability::Synced
            || space::defers_errors(&self.file).map_err(local("inspect", &self.path))?
        {
            self.file.sync_all().map_err(local("sync", &self.path))?;
        }
        // The digest was that of the open file, and a name can be moved to another one.
        if !is_named(&self.file, &self.path) {
            return Err(self.taken_away());
        }
        self.rename()?;
        if !is_named(&self.file, &self.output) {
            return Err(self.taken_away());
        }
        self.published = true;
        if durability == Durability::Synced {
            let folder = folder_of(&self.output);
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(local("sync", folder))?;
        }
        Ok(self.output.clone())
    }

    fn taken_away(&self) -> TransferError {
        let source = io::Error::other("another process removed, replaced or truncated it meanwhile");
        TransferError::LocalFile { action: "publish", path: self.path.clone(), source }
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
        if !self.published && is_named(&self.file, &self.path) {
            // Nobody is left to hear of a failure.
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
