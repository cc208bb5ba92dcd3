//! Reads many small files with few system calls.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, statat};
use rustix::io::Errno;

use super::{Root, file_nanoseconds};
use crate::backend::OpenError;
use crate::num::to_u64;

/// What is known of a file that was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SmallFile {
    /// Nanoseconds since 1970.
    pub(crate) modified: i64,
    /// The permission bits.
    pub(crate) mode: u32,
}

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotRead {
    /// It cannot be.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Another attempt, with more room, may succeed.
    #[error("{0}")]
    Now(&'static str),
}

/// Reads files below a root, mostly several of each folder.
#[derive(Debug)]
pub(crate) struct SmallFiles<'a> {
    root: &'a Root,
    /// The folder of the last one.
    folder: Option<(PathBuf, OwnedFd)>,
}

impl Root {
    /// A reader of small files.
    pub(crate) fn files(&self) -> SmallFiles<'_> {
        SmallFiles { root: self, folder: None }
    }
}

impl SmallFiles<'_> {
    /// Adds the content of a regular file of at most `room` bytes to `bytes`.
    ///
    /// # Errors
    /// Why it was not read. Something may have been added then.
    pub(crate) fn read(&mut self, path: &Path, room: u64, bytes: &mut Vec<u8>) -> Result<SmallFile, NotRead> {
        let parent = path.parent().unwrap_or(Path::new(""));
        if self.folder.as_ref().is_none_or(|(known, _)| known != parent) {
            let name = if parent.as_os_str().is_empty() { OsStr::new(".") } else { parent.as_os_str() };
            self.folder = Some((parent.to_owned(), self.root.resolve_folder(name)?));
        }
        let (_, folder) = self.folder.as_ref().ok_or(OpenError::NotFound)?;
        let name = path.file_name().unwrap_or_default();
        // First, as opening a device can start it.
        let found = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).map_err(OpenError::from_resolve)?;
        if !FileType::from_raw_mode(found.st_mode).is_file() {
            return Err(OpenError::NotRegular.into());
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let file = openat(folder, name, flags, Mode::empty()).map_err(|error| match error {
            Errno::ACCESS | Errno::PERM => OpenError::Unreadable,
            error => OpenError::from_resolve(error),
        })?;
        let mut file = File::from(file);
        let read = to_u64((&mut file).take(room + 1).read_to_end(bytes).map_err(OpenError::Io)?);
        if read > room {
            return Err(NotRead::Now("it is too large for a pack"));
        }
        let after = file.metadata().map_err(OpenError::Io)?;
        let is_same = after.is_file()
            && (after.ino(), after.mtime()) == (found.st_ino, found.st_mtime)
            && Ok(after.mtime_nsec()) == found.st_mtime_nsec.try_into()
            && (after.size(), Ok(after.size())) == (read, found.st_size.try_into());
        if !is_same {
            return Err(NotRead::Now("the file changed while it was read"));
        }
        let modified = file_nanoseconds(after.mtime(), after.mtime_nsec());
        Ok(SmallFile { modified: i64::try_from(modified).unwrap_or(0), mode: after.mode() & 0o777 })
    }
}
