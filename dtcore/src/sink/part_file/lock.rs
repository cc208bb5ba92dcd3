//! Locks on part files: creating a locked one, recognising and taking over the one of an earlier transfer.

use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, XattrFlags, flock, fremovexattr, fsetxattr, getxattr};
use rustix::io::Errno;

use crate::failure::Failure;
use crate::sink::{journal, sidecar};

/// What keeps other transfers away from a part file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exclusion {
    /// Its lock.
    Locked,
    /// Nothing: the file system has no locks, or grants them to everyone.
    Absent,
}

/// A part file, and what keeps others away from it.
#[derive(Debug)]
pub(super) struct ClaimedFile {
    pub(super) file: File,
    pub(super) exclusion: Exclusion,
    /// Whether the umask may take something from the owner of a file of this mode.
    pub(super) may_be_masked: bool,
}

/// Locks the file that `path` names, where that is possible; `None` if another transfer has locked or removed it.
fn claim(file: File, path: &Path) -> io::Result<Option<ClaimedFile>> {
    let exclusion = match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) if is_refused_to_others(path) => Exclusion::Locked,
        Ok(()) | Err(Errno::NOSYS | Errno::NOLCK | Errno::OPNOTSUPP | Errno::INVAL) => Exclusion::Absent,
        Err(Errno::WOULDBLOCK) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok(sidecar::is_named(&file, path).then_some(ClaimedFile { file, exclusion, may_be_masked: true }))
}

/// Whether the lock on the file at `path`, which this transfer holds, is refused to another process that opens the file.
fn is_refused_to_others(path: &Path) -> bool {
    // For writing, as NFS requires. A file that cannot be opened again cannot be locked by others either.
    sidecar::open_existing_for_writing(path)
        .map_or(true, |second| flock(&second, FlockOperation::NonBlockingLockExclusive).is_err())
}

/// Creates and locks a file at `path`; `None` if another transfer removed or locked it in between.
pub(super) fn create_locked(path: &Path) -> io::Result<Option<ClaimedFile>> {
    let (file, may_be_masked) = sidecar::create_and_compare(path, 0o666)?;
    let claimed = claim(file, path);
    if claimed.is_err() {
        fs::remove_file(path)?;
    }
    claimed.map(|claimed| claimed.map(|claimed| ClaimedFile { may_be_masked, ..claimed }))
}

/// The part file of an earlier transfer, locked where that is possible.
#[derive(Debug)]
pub(super) struct StalePartFile {
    claimed: ClaimedFile,
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
        let Some(claimed) = claim(file, path).map_err(failed)? else {
            // Locked by another transfer, or just removed by it.
            return if path.exists() {
                Err(Failure::OutputInUse { path: output.to_owned() })
            } else {
                Ok(None)
            };
        };
        let found = claimed.file.metadata().map_err(failed)?;
        // The part file for another user's output belongs to that user.
        let is_own =
            sidecar::is_own(&found) || fs::metadata(output).is_ok_and(|output| output.uid() == found.uid());
        if !sidecar::is_plain(&found) || !is_own || !is_part_file(&claimed.file, &found, journal) {
            return Err(failed(io::Error::other("not a part file of this user; move it away")));
        }
        Ok(Some(Self { claimed, path: path.to_owned(), mode }))
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
    pub(super) fn take_over(self) -> io::Result<Option<ClaimedFile>> {
        if self.mode == OpenMode::ReadWrite {
            return Ok(Some(self.claimed));
        }
        let read_only = self.claimed.file;
        let mode = read_only.metadata()?.permissions().mode();
        read_only.set_permissions(Permissions::from_mode(mode | 0o600))?;
        let file = sidecar::open_existing_for_writing(&self.path)?;
        if !sidecar::is_named(&read_only, &self.path) || !sidecar::is_named(&file, &self.path) {
            return Ok(None);
        }
        // The lock belongs to the open file that cannot be written to.
        drop(read_only);
        claim(file, &self.path)
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

/// Whether a file is marked as a part file, is empty and so not marked yet, or its journal describes it.
fn is_part_file(file: &File, found: &Metadata, journal: &Path) -> bool {
    sidecar::is_marked(file) || found.len() == 0 || journal::describes(journal, file, found)
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
    let is_chowned = (created.uid(), created.gid()) == (replaced.uid(), replaced.gid())
        || fchown(file, Some(replaced.uid()), Some(replaced.gid())).is_ok();
    if !is_chowned {
        // A group that is not the output's gets no more than all users.
        mode &= 0o707 | (mode & 0o007) << 3;
    }
    // With the owner and group of the old one only: the rights of both are among those of the list.
    let list = if is_chowned { access_list(output)? } else { None };
    match list {
        Some(list) => fsetxattr(file, ACCESS_LIST, &list, XattrFlags::empty())?,
        // The folder may give every new file a list. Where there are none, there is nothing to remove.
        None => drop(fremovexattr(file, ACCESS_LIST)),
    }
    match file.set_permissions(Permissions::from_mode(mode)) {
        // The file system has no permissions.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
        result => result,
    }
}

/// The extended attribute that holds the access control list of a file.
const ACCESS_LIST: &str = "system.posix_acl_access";

/// The largest list that is copied: some thousand users.
const MAX_ACCESS_LIST: usize = 64 << 10;

/// The access control list of the file at `path`, if it has one.
fn access_list(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut list = vec![0; MAX_ACCESS_LIST];
    match getxattr(path, ACCESS_LIST, &mut list) {
        Ok(len) => {
            list.truncate(len);
            Ok(Some(list))
        }
        // There is none, or the file system has none.
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(None),
        Err(error) => Err(error.into()),
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
        assert!(fcntl_getfl(&stale.claimed.file).unwrap().contains(OFlags::RDWR));
        // The same open file is returned, so that no other transfer can lock it in between.
        let ClaimedFile { file, exclusion, .. } = stale.take_over().unwrap().unwrap();
        assert_eq!(exclusion, Exclusion::Locked);
        assert_eq!(flock(&file, FlockOperation::NonBlockingLockExclusive), Ok(()));
        assert!(is_locked(&path));
    }

    #[test]
    fn read_only_file_is_locked() {
        let (_folder, path) = stale(0o400);
        // Set explicitly, as root may write every file.
        let claimed = claim(sidecar::open_existing(&path).unwrap(), &path).unwrap().unwrap();
        let stale = StalePartFile { claimed, path: path.clone(), mode: OpenMode::ReadOnly };
        let ClaimedFile { file, .. } = stale.take_over().unwrap().unwrap();
        assert!(fcntl_getfl(&file).unwrap().contains(OFlags::RDWR));
        assert!(is_locked(&path));
    }
}
