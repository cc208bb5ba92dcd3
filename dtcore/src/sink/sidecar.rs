//! The sidecar files of an output: part file and journal, marked when they are created.
//!
//! Their names are derived from the output's. Another user may have chosen such a name, or planted a file under it in a
//! shared folder, so every existing file is checked before it is used or removed.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{OFlags, XattrFlags, fgetxattr, fremovexattr, fsetxattr};
use rustix::io::Errno;

/// The suffix of the unfinished replacement of a journal: as long as a journal's, so that no name becomes too long.
pub(super) const JOURNAL_REPLACEMENT: &str = ".dtjournew";

/// The extended attribute that marks sidecar files.
const MARK: &str = "user.dt.part";

/// What the owner of a sidecar file must be allowed, so that a later transfer can use it.
const OWNER: u32 = 0o600;

/// Creates a file that must not exist. Whatever the umask, its owner can open it again.
pub(super) fn create(path: &Path, mode: u32) -> io::Result<File> {
    create_and_compare(path, mode).map(|(file, _)| file)
}

/// As [`create`]; also returns whether the umask would take something from the owner.
pub(super) fn create_and_compare(path: &Path, mode: u32) -> io::Result<(File, bool)> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(path)?;
    let mode = file.metadata()?.permissions().mode();
    let is_masked = mode & OWNER != OWNER;
    if is_masked {
        file.set_permissions(Permissions::from_mode(mode | OWNER))?;
    }
    Ok((file, is_masked))
}

/// Takes from a new file what the umask takes from its owner.
pub(super) fn apply_umask(file: &File) -> io::Result<()> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    let umask = umask.and_then(|umask| u32::from_str_radix(umask.trim(), 8).ok()).unwrap_or(0);
    if umask & OWNER == 0 {
        return Ok(());
    }
    let mode = file.metadata()?.permissions().mode();
    file.set_permissions(Permissions::from_mode(mode & !umask))
}

/// Marks a sidecar file.
pub(super) fn mark(file: &File) {
    // Without extended attributes, sidecar files are recognised by their content.
    let _ = fsetxattr(file, MARK, b"1", XattrFlags::empty());
}

/// Removes the mark from a file that is no sidecar file any more.
pub(super) fn unmark(file: &File) {
    // It may have none.
    let _ = fremovexattr(file, MARK);
}

/// Whether a file is marked as a sidecar file.
pub(super) fn is_marked(file: &File) -> bool {
    fgetxattr(file, MARK, &mut [0; 8]).is_ok()
}

/// Whether the file system has no marks at all.
pub(super) fn cannot_be_marked(file: &File) -> bool {
    matches!(fgetxattr(file, MARK, &mut [0; 8]), Err(Errno::OPNOTSUPP | Errno::NOSYS))
}

/// Whether `path` names the open `file`, and not another file that took its name.
pub(super) fn is_named(file: &File, path: &Path) -> bool {
    let identity = |found: Metadata| (found.dev(), found.ino());
    let opened = file.metadata().map(identity);
    opened.is_ok_and(|opened| fs::symlink_metadata(path).map(identity).is_ok_and(|named| named == opened))
}

/// Opens an existing file of any type for checks: follows no link and does not block on a pipe.
pub(super) fn open_existing(path: &Path) -> io::Result<File> {
    open_options().open(path)
}

/// As [`open_existing`], for writing too.
pub(super) fn open_existing_for_writing(path: &Path) -> io::Result<File> {
    open_options().write(true).open(path)
}

fn open_options() -> OpenOptions {
    let flags = i32::try_from(OFlags::NOFOLLOW.bits() | OFlags::NONBLOCK.bits()).unwrap_or(0);
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(flags);
    options
}

/// Whether it is a regular file with a single name.
pub(super) fn is_plain(found: &Metadata) -> bool {
    found.is_file() && found.nlink() == 1
}

/// Whether the file belongs to this user.
pub(super) fn is_own(found: &Metadata) -> bool {
    found.uid() == rustix::process::geteuid().as_raw()
}
