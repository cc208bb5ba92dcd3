//! Locks on part files: creating a locked one, recognising and taking over the one of an earlier transfer.

use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::failure::Failure;
use crate::sink::{journal, sidecar};

/// Creates and locks a file at `path`; `None` if another transfer removed or locked it in between.
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

/// The locked part file of an earlier transfer.
#[derive(Debug)]
pub(super) struct StalePartFile {
    file: File,
    path: PathBuf,
    mode: OpenMode,
}

/// How a part file could be opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum OpenMode {
    /// As needed for a transfer.
    ReadWrite,
    /// It has the permissions of an output that not even its owner may write.
    ReadOnly,
}

impl StalePartFile {
    /// Locks the part file at `path`; `None` if it was removed in the meantime.
    ///
    /// # Errors
    /// It is in use, or it is not a part file of this user. It is not changed then.
    pub(super) fn lock(path: &Path, journal: &Path, output: &Path) -> Result<Option<Self>, Failure> {
        let failed = |source| Failure::LocalFile { action: "take over", path: path.to_owned(), source };
        let (file, mode) = match open(path) {
            Ok(opened) => opened,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(_) if fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) => {
                return Err(failed(io::Error::other("it is a symbolic link; remove it")));
            }
            Err(error) => return Err(failed(error)),
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(Failure::OutputInUse { path: output.to_owned() }),
            Err(error) => return Err(failed(error.into())),
        }
        let found = file.metadata().map_err(failed)?;
        // The part file for another user's output belongs to that user.
        let is_own =
            sidecar::is_own(&found) || fs::metadata(output).is_ok_and(|output| output.uid() == found.uid());
        if !sidecar::is_plain(&found) || !is_own || !is_part_file(&file, &found, journal) {
            return Err(failed(io::Error::other("not a part file of this user; move it away")));
        }
        let is_named = sidecar::is_named(&file, path);
        Ok(is_named.then(|| Self { file, path: path.to_owned(), mode }))
    }

    /// Removes it.
    pub(super) fn remove(self) -> Result<(), Failure> {
        fs::remove_file(&self.path).map_err(|source| Failure::LocalFile {
            action: "take over",
            path: self.path,
            source,
        })
    }

    /// The locked file, open for writing; `None` if another transfer took it in between.
    pub(super) fn take_over(self) -> io::Result<Option<File>> {
        if self.mode == OpenMode::ReadWrite {
            return Ok(Some(self.file));
        }
        let mode = self.file.metadata()?.permissions().mode();
        self.file.set_permissions(Permissions::from_mode(mode | 0o600))?;
        let file = sidecar::open_existing_for_writing(&self.path)?;
        if !sidecar::is_named(&self.file, &self.path) || !sidecar::is_named(&file, &self.path) {
            return Ok(None);
        }
        // The lock belongs to the open file that cannot be written to.
        drop(self.file);
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(sidecar::is_named(&file, &self.path).then_some(file)),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Opens the file at `path`, for writing if possible: NFS locks only writable files exclusively.
fn open(path: &Path) -> io::Result<(File, OpenMode)> {
    match sidecar::open_existing_for_writing(path) {
        Ok(file) => Ok((file, OpenMode::ReadWrite)),
        // Reading is enough to recognise a part file.
        Err(_) => sidecar::open_existing(path).map(|file| (file, OpenMode::ReadOnly)),
    }
}

/// Whether a file is marked as a part file, is empty and so not marked yet, or its journal names it.
fn is_part_file(file: &File, found: &Metadata, journal: &Path) -> bool {
    sidecar::is_marked(file)
        || found.len() == 0
        || journal::part_identity(file).is_ok_and(|part| journal::describes(journal, part))
}

/// Whether `path` is a part file that is in use.
pub(super) fn is_locked(path: &Path) -> bool {
    // If it gets the lock, closing the file at the end of this function releases it.
    sidecar::open_existing(path)
        .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK))
}

/// Gives the part file the owner and permissions of the output it will replace: users who cannot read the old content must
/// not be able to read the new content at any time.
pub(super) fn copy_permissions(output: &Path, file: &File) -> io::Result<()> {
    let Ok(replaced) = fs::metadata(output) else { return Ok(()) };
    let created = file.metadata()?;
    // setuid and the like belong to the old content.
    let mut mode = replaced.permissions().mode() & 0o777;
    if (created.uid(), created.gid()) != (replaced.uid(), replaced.gid()) {
        let chowned = fchown(file, Some(replaced.uid()), Some(replaced.gid()));
        if chowned.is_err() {
            // A group that is not the output's gets no more than all users.
            mode &= 0o707 | (mode & 0o007) << 3;
        }
    }
    match file.set_permissions(Permissions::from_mode(mode)) {
        // The file system has no permissions.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{OFlags, fcntl_getfl};
    use std::os::unix::fs::OpenOptionsExt;

    /// A folder with a part file of this mode, and the part file's path.
    fn stale(mode: u32) -> (tempfile::TempDir, PathBuf) {
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
    fn locked_file_is_open_for_writing_as_nfs_requires() {
        let (_folder, path) = stale(0o600);
        let stale = lock(&path);
        assert!(fcntl_getfl(&stale.file).unwrap().contains(OFlags::RDWR));
        // The same open file is returned, so that no other transfer can lock it in between.
        let file = stale.take_over().unwrap().unwrap();
        assert_eq!(flock(&file, FlockOperation::NonBlockingLockExclusive), Ok(()));
        assert!(is_locked(&path));
    }

    #[test]
    fn read_only_file_is_locked() {
        let (_folder, path) = stale(0o400);
        // Set explicitly, as root may write every file.
        let stale = StalePartFile {
            file: sidecar::open_existing(&path).unwrap(),
            mode: OpenMode::ReadOnly,
            ..lock(&path)
        };
        let file = stale.take_over().unwrap().unwrap();
        assert!(fcntl_getfl(&file).unwrap().contains(OFlags::RDWR));
        assert!(is_locked(&path));
    }
}
