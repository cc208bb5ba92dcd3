//! Where the output and its part file are: names, links, and what cannot be an output.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::{fs, io};

use rustix::io::Errno;

use super::Clobber;
use crate::digest::Md5Digest;
use crate::error::TransferError;

/// The suffix of part files.
const PART: &str = ".dtpart";

/// The suffix of their journals.
const JOURNAL: &str = ".dtjournal";

/// The longest file name that Linux file systems take, in bytes.
const MAX_NAME: usize = 255;

/// How many links are followed from the output's name, as in the kernel.
const MAX_LINKS: u32 = 40;

/// Follows links to the file they stand for and refuses what cannot be replaced.
pub(super) fn resolve(output: &Path, clobber: Clobber) -> Result<PathBuf, TransferError> {
    let refused = |source| TransferError::LocalFile { action: "write", path: output.to_owned(), source };
    if output.file_name().is_none()
        || [&b"/"[..], b"/."].iter().any(|end| output.as_os_str().as_bytes().ends_with(end))
    {
        return Err(refused(io::ErrorKind::IsADirectory.into()));
    }
    if clobber == Clobber::Refuse && fs::symlink_metadata(output).is_ok() {
        return Err(TransferError::OutputExists { path: output.to_owned() });
    }
    let mut resolved = output.to_owned();
    for _ in 0..MAX_LINKS {
        match fs::symlink_metadata(&resolved) {
            Ok(found) if found.is_symlink() => {
                let target = fs::read_link(&resolved).map_err(refused)?;
                resolved = folder_of(&resolved).join(target);
            }
            Ok(found) if found.is_dir() => return Err(refused(io::ErrorKind::IsADirectory.into())),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(refused(error)),
            // A file to replace, or none yet.
            Ok(_) | Err(_) => return Ok(resolved),
        }
    }
    Err(refused(Errno::LOOP.into()))
}

/// The part file's path.
pub(super) fn part_path(output: &Path) -> PathBuf {
    beside(output, PART)
}

/// The journal's path.
pub(super) fn journal_path(output: &Path) -> PathBuf {
    beside(output, JOURNAL)
}

/// The output's path with a suffix, or with a digest in it where the name would get too long.
fn beside(output: &Path, suffix: &str) -> PathBuf {
    let whole = output.file_name().unwrap_or_default().as_bytes();
    let mut name = whole.to_vec();
    if name.len() + suffix.len() > MAX_NAME {
        name.truncate(MAX_NAME - suffix.len() - 33);
        name.extend_from_slice(format!(".{}", Md5Digest::of(whole)).as_bytes());
    }
    name.extend_from_slice(suffix.as_bytes());
    output.with_file_name(OsString::from_vec(name))
}

pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
