//! Files of ours beside the output: marked when they are made, and told from those of others by that.
//!
//! Their names follow from the output's. Somebody may have chosen such a name, or planted a file under it in a folder
//! that others may write to, so that what is found is looked at before anything is done with it.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{OFlags, XattrFlags, fgetxattr, fsetxattr};

/// The extended attribute that marks a file as ours.
const MARK: &str = "user.dt.part";

/// Makes a new file; there must be none.
pub(super) fn create(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(path)
}

/// Marks a file as ours.
pub(super) fn mark(file: &File) {
    // Where a file system keeps no such marks, other signs must tell.
    let _ = fsetxattr(file, MARK, b"1", XattrFlags::empty());
}

/// Whether a file has been marked as ours.
pub(super) fn is_marked(file: &File) -> bool {
    fgetxattr(file, MARK, &mut [0; 8]).is_ok()
}

/// Whether `path` names the open `file`, and not another one that took its name.
pub(super) fn is_named(file: &File, path: &Path) -> bool {
    let identity = |found: Metadata| (found.dev(), found.ino());
    let opened = file.metadata().map(identity);
    opened.is_ok_and(|opened| fs::symlink_metadata(path).map(identity).is_ok_and(|named| named == opened))
}

/// Opens what is at `path` to look at it, whatever it is: no link is followed, and no pipe's other end waited for.
pub(super) fn open_found(path: &Path) -> io::Result<File> {
    open_options().open(path)
}

/// As [`open_found`], to write to it as well.
pub(super) fn open_found_to_write(path: &Path) -> io::Result<File> {
    open_options().write(true).open(path)
}

/// Whether what is at `path` is a symbolic link.
pub(super) fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink())
}

fn open_options() -> OpenOptions {
    let flags = i32::try_from(OFlags::NOFOLLOW.bits() | OFlags::NONBLOCK.bits()).unwrap_or(0);
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(flags);
    options
}

/// Whether a file that was found is a regular one under a single name.
pub(super) fn is_plain(found: &Metadata) -> bool {
    found.is_file() && found.nlink() == 1
}

/// Whether a file that was found is this user's.
pub(super) fn is_own(found: &Metadata) -> bool {
    found.uid() == rustix::process::geteuid().as_raw()
}
