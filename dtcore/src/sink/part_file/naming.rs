//! Paths of the output and its sidecar files: symbolic links, and what cannot be an output.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::{fs, io};

use rustix::io::Errno;

use super::Clobber;
use crate::digest::Md5Digest;
use crate::failure::Failure;
use crate::sink::sidecar::JOURNAL_REPLACEMENT;

/// The suffix of part files.
const PART: &str = ".dtpart";

/// The suffix of journals.
const JOURNAL: &str = ".dtjournal";

/// The longest file name on Linux file systems, in bytes.
const MAX_NAME: usize = 255;

/// How many symbolic links are followed from the output's name, as in the kernel.
const MAX_LINKS: u32 = 40;

/// Whether a symbolic link at the output's name leads to the output.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Links {
    Followed,
    /// Only a regular file is replaced.
    Refused,
}

/// Follows symbolic links to the output, and rejects what cannot be replaced.
pub(super) fn resolve(output: &Path, links: Links, clobber: Clobber) -> Result<PathBuf, Failure> {
    let rejected = |source| Failure::LocalFile { action: "write", path: output.to_owned(), source };
    if output.file_name().is_none()
        || [&b"/"[..], b"/."].iter().any(|end| output.as_os_str().as_bytes().ends_with(end))
    {
        return Err(rejected(io::ErrorKind::IsADirectory.into()));
    }
    if clobber == Clobber::Refuse && fs::symlink_metadata(output).is_ok() {
        return Err(Failure::OutputExists { path: output.to_owned() });
    }
    let mut resolved = output.to_owned();
    for _ in 0..MAX_LINKS {
        match fs::symlink_metadata(&resolved) {
            Ok(found) if links == Links::Refused && !found.is_dir() && !found.is_file() => {
                return Err(rejected(io::Error::other("it is not a regular file")));
            }
            Ok(found) if found.is_symlink() => {
                let target = fs::read_link(&resolved).map_err(rejected)?;
                resolved = folder_of(&resolved).join(target);
            }
            Ok(found) if found.is_dir() => return Err(rejected(io::ErrorKind::IsADirectory.into())),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(rejected(error)),
            // A file to replace, or no file yet.
            Ok(_) | Err(_) => return Ok(resolved),
        }
    }
    Err(rejected(Errno::LOOP.into()))
}

/// The part file's path.
pub(super) fn part_path(output: &Path) -> PathBuf {
    sidecar_path(output, PART)
}

/// The journal's path.
pub(super) fn journal_path(output: &Path) -> PathBuf {
    sidecar_path(output, JOURNAL)
}

/// Whether a file of this name would be taken for one that a transfer leaves beside its output.
pub(crate) fn is_sidecar_name(name: &[u8]) -> bool {
    [PART, JOURNAL, JOURNAL_REPLACEMENT].iter().any(|suffix| name.ends_with(suffix.as_bytes()))
}

/// The name of the part file of an output with this name.
pub(crate) fn sidecar_name(output_name: &OsStr) -> OsString {
    with_suffix(output_name, PART)
}

/// The output's path with a suffix.
fn sidecar_path(output: &Path, suffix: &str) -> PathBuf {
    output.with_file_name(with_suffix(output.file_name().unwrap_or_default(), suffix))
}

/// A name with a suffix; if that would be too long, a digest replaces its end.
fn with_suffix(output_name: &OsStr, suffix: &str) -> OsString {
    let output_name = output_name.as_bytes();
    let mut name = output_name.to_vec();
    if name.len() + suffix.len() > MAX_NAME {
        let mut end = MAX_NAME - suffix.len() - 33;
        // Some file systems take no part of a character.
        if let Ok(text) = str::from_utf8(output_name) {
            while !text.is_char_boundary(end) {
                end -= 1;
            }
        }
        name.truncate(end);
        name.extend_from_slice(format!(".{}", Md5Digest::of(output_name)).as_bytes());
    }
    name.extend_from_slice(suffix.as_bytes());
    OsString::from_vec(name)
}

/// The folder that contains `path`.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
