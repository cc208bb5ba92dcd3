//! Whose part file it is: making one with a lock on it, telling it from others, clearing away what a killed transfer left.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

use rustix::fs::{FlockOperation, OFlags, XattrFlags, fgetxattr, flock, fsetxattr};
use rustix::io::Errno;

use crate::error::TransferError;

/// The extended attribute that marks a file as a part file.
const MARK: &str = "user.dt.part";

/// Marks a file as a part file.
pub(super) fn mark(file: &File) {
    // Where a file system keeps no such marks, a leftover is not taken for ours, and the user must remove it.
    let _ = fsetxattr(file, MARK, b"1", XattrFlags::empty());
}

/// Whether `path` names the open `file`, and not another one that took its name.
pub(super) fn is_named(file: &File, path: &Path) -> bool {
    let identity = |found: fs::Metadata| (found.dev(), found.ino());
    let opened = file.metadata().map(identity);
    opened.is_ok_and(|opened| fs::symlink_metadata(path).map(identity).is_ok_and(|named| named == opened))
}

/// A new file at `path` with a lock on it; `None` if it lost its name to another transfer before it was locked.
pub(super) fn create_locked(path: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o666).open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(is_named(&file, path).then_some(file)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => {
            fs::remove_file(path)?;
            Err(error.into())
        }
    }
}

/// Opens what is at `path` to look at it, whatever it is: no link is followed, and no pipe's other end waited for.
fn open_found(path: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::NOFOLLOW.bits() | OFlags::NONBLOCK.bits()).unwrap_or(0);
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

/// Removes the part file that a killed transfer left at `path`.
///
/// A file that is in use stays, and so does one that does not look like ours: somebody may have chosen this very name, or
/// planted a file under it in a folder that others may write to.
pub(super) fn remove_leftover(path: &Path, output: &Path) -> Result<(), TransferError> {
    let failed = |source| TransferError::LocalFile { action: "take over", path: path.to_owned(), source };
    let file = match open_found(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Err(TransferError::OutputInUse { path: output.to_owned() }),
        Err(error) => return Err(failed(error.into())),
    }
    let found = file.metadata().map_err(failed)?;
    let is_plain =
        found.is_file() && found.nlink() == 1 && found.uid() == rustix::process::geteuid().as_raw();
    let is_marked = fgetxattr(&file, MARK, &mut [0; 8]).is_ok();
    if !is_plain || !(is_marked || found.len() == 0) {
        return Err(failed(io::Error::other("it does not look like a part file of yours; move it away")));
    }
    if is_named(&file, path) { fs::remove_file(path).map_err(failed) } else { Ok(()) }
}

/// Whether `path` is a file that a transfer is working on.
pub(super) fn is_locked(path: &Path) -> bool {
    // The lock, if it can be had, goes with the file at the end of this function.
    open_found(path)
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
