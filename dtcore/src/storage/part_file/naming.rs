//! Where the output and its part file are: names, links, and what cannot be an output.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::Clobber;
use crate::error::TransferError;
use crate::integrity::Md5Digest;

/// The suffix of part files.
const SUFFIX: &str = ".dtpart";

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

/// The part file's path: the output's with a suffix, or with a digest in it where the name would get too long.
pub(super) fn part_path(output: &Path) -> PathBuf {
    let name = output.file_name().unwrap_or_default().as_bytes();
    let mut part = name.to_vec();
    if part.len() + SUFFIX.len() > MAX_NAME {
        part.truncate(MAX_NAME - SUFFIX.len() - 33);
        part.extend_from_slice(format!(".{}", Md5Digest::of(name)).as_bytes());
    }
    part.extend_from_slice(SUFFIX.as_bytes());
    output.with_file_name(OsString::from_vec(part))
}

pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
