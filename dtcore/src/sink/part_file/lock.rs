//! Whose part file it is: making one with a lock on it, telling it from others, taking over what an earlier transfer left.

use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::TransferError;
use crate::sink::{journal, sidecar};

/// A new file at `path` with a lock on it; `None` if it lost its name to another transfer before it was locked.
pub(super) fn create_locked(path: &Path) -> io::Result<Option<File>> {
    let file = sidecar::create(path, 0o666)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(sidecar::is_named(&file, path).then_some(file)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => {
            fs::remove_file(path)?;
            Err(error.into())
        }
    }
}

/// A part file that an earlier transfer left, with a lock on it.
#[derive(Debug)]
pub(super) struct StalePartFile {
    file: File,
    path: PathBuf,
    opened: Opened,
}

/// How a part file that was found could be opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Opened {
    /// As it must be to go on with it.
    ToWrite,
    /// Only to look at it: it is protected like an output that not even its owner may write.
    ToRead,
}

impl StalePartFile {
    /// Locks the part file at `path`; `None` if it has gone meanwhile.
    ///
    /// # Errors
    /// It is in use, or it does not look like ours: then it stays as it is.
    pub(super) fn lock(path: &Path, journal: &Path, output: &Path) -> Result<Option<Self>, TransferError> {
        let failed = |source| TransferError::LocalFile { action: "take over", path: path.to_owned(), source };
        let (file, opened) = match open(path) {
            Ok(opened) => opened,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(_) if sidecar::is_link(path) => {
                return Err(failed(io::Error::other("it is a symbolic link; remove it")));
            }
            Err(error) => return Err(failed(error)),
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(TransferError::OutputInUse { path: output.to_owned() }),
            Err(error) => return Err(failed(error.into())),
        }
        let found = file.metadata().map_err(failed)?;
        // One that was to replace somebody else's output was given to its owner.
        let is_own =
            sidecar::is_own(&found) || fs::metadata(output).is_ok_and(|output| output.uid() == found.uid());
        if !sidecar::is_plain(&found) || !is_own || !is_part_file(&file, &found, journal) {
            return Err(failed(io::Error::other("it does not look like a part file of yours; move it away")));
        }
        let is_named = sidecar::is_named(&file, path);
        Ok(is_named.then(|| Self { file, path: path.to_owned(), opened }))
    }

    /// Removes it.
    pub(super) fn remove(self) -> Result<(), TransferError> {
        fs::remove_file(&self.path).map_err(|source| TransferError::LocalFile {
            action: "take over",
            path: self.path,
            source,
        })
    }

    /// The file to go on with, locked; `None` if another transfer came in between.
    pub(super) fn take_over(self) -> io::Result<Option<File>> {
        if self.opened == Opened::ToWrite {
            return Ok(Some(self.file));
        }
        let mode = self.file.metadata()?.permissions().mode();
        self.file.set_permissions(Permissions::from_mode(mode | 0o600))?;
        let file = sidecar::open_found_to_write(&self.path)?;
        if !sidecar::is_named(&self.file, &self.path) || !sidecar::is_named(&file, &self.path) {
            return Ok(None);
        }
        // The lock is the open file's, and the first one cannot be written to.
        drop(self.file);
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(sidecar::is_named(&file, &self.path).then_some(file)),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Opens what is at `path`, to write if that may be: over NFS, no other file can be locked exclusively.
fn open(path: &Path) -> io::Result<(File, Opened)> {
    match sidecar::open_found_to_write(path) {
        Ok(file) => Ok((file, Opened::ToWrite)),
        // Whatever it is that cannot be written is told from ours by looking at it.
        Err(_) => sidecar::open_found(path).map(|file| (file, Opened::ToRead)),
    }
}

/// Whether a file is marked as a part file, or has not got that far; where no marks are kept, its journal tells.
fn is_part_file(file: &File, found: &Metadata, journal: &Path) -> bool {
    sidecar::is_marked(file)
        || found.len() == 0
        || journal::identity(file).is_ok_and(|part| journal::is_about(journal, part))
}

/// Whether `path` is a file that a transfer is working on.
pub(super) fn is_locked(path: &Path) -> bool {
    // The lock, if it can be had, goes with the file at the end of this function.
    sidecar::open_found(path)
        .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK))
}

/// Gives the part file owner and permissions of the output it will replace: who could not read the old one shall not be
/// able to read the new one, at any time.
pub(super) fn protect_like(output: &Path, file: &File) -> io::Result<()> {
    let Ok(replaced) = fs::metadata(output) else { return Ok(()) };
    let created = file.metadata()?;
    // Marks such as setuid belong to the old bytes, not to those that come.
    let mut mode = replaced.permissions().mode() & 0o777;
    if (created.uid(), created.gid()) != (replaced.uid(), replaced.gid()) {
        let chowned = fchown(file, Some(replaced.uid()), Some(replaced.gid()));
        if chowned.is_err() {
            // Another group than before may read no more than everybody.
            mode &= 0o707 | (mode & 0o007) << 3;
        }
    }
    match file.set_permissions(Permissions::from_mode(mode)) {
        // This file system has no permissions to protect.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{OFlags, fcntl_getfl};
    use std::os::unix::fs::OpenOptionsExt;

    /// A folder with a part file of this mode in it, and the path of that.
    fn left(mode: u32) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.dtpart");
        fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&path).unwrap();
        (folder, path)
    }

    fn lock(path: &Path) -> StalePartFile {
        let (journal, output) = (path.with_extension("dtjournal"), path.with_extension(""));
        StalePartFile::lock(path, &journal, &output).unwrap().unwrap()
    }

    #[test]
    fn what_is_locked_was_opened_to_write_as_nfs_demands() {
        let (_folder, path) = left(0o600);
        let leftover = lock(&path);
        assert!(fcntl_getfl(&leftover.file).unwrap().contains(OFlags::RDWR));
        // The same open file goes on, so that no other transfer can come in between.
        let file = leftover.take_over().unwrap().unwrap();
        assert_eq!(flock(&file, FlockOperation::NonBlockingLockExclusive), Ok(()));
        assert!(is_locked(&path));
    }

    #[test]
    fn what_may_not_be_written_is_locked_all_the_same() {
        let (_folder, path) = left(0o400);
        // Whoever runs this may be allowed everything.
        let leftover = StalePartFile {
            file: sidecar::open_found(&path).unwrap(),
            opened: Opened::ToRead,
            ..lock(&path)
        };
        let file = leftover.take_over().unwrap().unwrap();
        assert!(fcntl_getfl(&file).unwrap().contains(OFlags::RDWR));
        assert!(is_locked(&path));
    }
}
