//! How an output can be replaced, found out before the first byte arrives.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
use rustix::process::geteuid;

use super::naming::folder_of;
use crate::failure::Failure;

/// The mode bit of folders in which nobody may remove the files of others.
const STICKY: u32 = 0o1000;

/// The output, if it is a mount point, as of a container: nothing can be renamed to it, so it is written in place. `None` if a part
/// file can replace it.
///
/// # Errors
/// It can be neither.
pub(super) fn in_place(output: &Path) -> Result<Option<File>, Failure> {
    let failed = |source| Failure::LocalFile { action: "replace", path: output.to_owned(), source };
    let folder = folder_of(output);
    if attributes(folder).contains(StatxAttributes::APPEND) {
        let reason = "its directory is append-only, so nothing can be renamed there";
        return Err(failed(io::Error::other(reason)));
    }
    let Ok(found) = fs::metadata(output) else { return Ok(None) };
    let attributes = attributes(output);
    if attributes.contains(StatxAttributes::IMMUTABLE) {
        return Err(failed(io::Error::other("it is immutable (chattr -i allows changes)")));
    }
    if attributes.contains(StatxAttributes::APPEND) {
        return Err(failed(io::Error::other("it is append-only (chattr -a allows changes)")));
    }
    if attributes.contains(StatxAttributes::MOUNT_ROOT) {
        return OpenOptions::new().write(true).open(output).map(Some).map_err(failed);
    }
    let user = geteuid();
    let owns = |owner| user.is_root() || owner == user.as_raw();
    let is_protected = |folder: fs::Metadata| folder.mode() & STICKY != 0 && !owns(folder.uid());
    if !owns(found.uid()) && fs::metadata(folder).is_ok_and(is_protected) {
        return Err(failed(io::Error::other("it belongs to another user, and its directory is sticky")));
    }
    Ok(None)
}

/// What is special about a file; nothing if the file system does not say.
fn attributes(path: &Path) -> StatxAttributes {
    statx(CWD, path, AtFlags::empty(), StatxFlags::empty())
        .map_or(StatxAttributes::empty(), |found| found.stx_attributes & found.stx_attributes_mask)
}
