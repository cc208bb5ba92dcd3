//! Places for new files below the served folder.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, mkdirat};
use rustix::io::Errno;

use super::Root;
use crate::backend::OpenError;

/// The longest name of a file below the root, in bytes.
const MAX_NAME: usize = 4096;

/// A place for a file: a folder below the root, which stays the same whatever becomes of its name, and a name in it.
#[derive(Debug)]
pub(crate) struct FilePlace {
    folder: Arc<OwnedFd>,
    name: OsString,
    /// The name relative to the root, without empty parts and dots.
    relative: PathBuf,
}

impl FilePlace {
    /// The place of another file in the same folder.
    pub(crate) fn sibling(&self, name: &OsStr) -> Self {
        let relative = self.relative.with_file_name(name);
        Self { folder: Arc::clone(&self.folder), name: name.to_owned(), relative }
    }

    /// A path that leads there as long as this exists, even if the folder is renamed or another one gets its name.
    pub(crate) fn path(&self) -> PathBuf {
        Path::new("/proc/self/fd").join(self.folder.as_raw_fd().to_string()).join(&self.name)
    }

    /// The folder.
    pub(crate) fn folder(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }

    /// The name of the file.
    pub(crate) fn name(&self) -> &OsStr {
        &self.name
    }

    /// The name relative to the root.
    pub(crate) fn relative(&self) -> &Path {
        &self.relative
    }
}

impl Root {
    /// The place of the file `name`. Folders that are missing on the way are created.
    ///
    /// # Errors
    /// The name leads out of the root, or cannot be that of a file. Nothing is created then.
    pub(crate) fn place(&self, name: &[u8]) -> Result<FilePlace, OpenError> {
        if name.len() > MAX_NAME {
            return Err(OpenError::TooLong);
        }
        if name.ends_with(b"/") || name.is_empty() {
            return Err(OpenError::Directory);
        }
        let parts = name.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
        let parts: Vec<&OsStr> = parts.map(OsStr::from_bytes).collect();
        if parts.contains(&OsStr::new("..")) {
            return Err(OpenError::Outside);
        }
        let relative: PathBuf = parts.iter().collect();
        let (name, folders) = parts.split_last().ok_or(OpenError::Directory)?;
        if folders.iter().chain([name]).any(|part| part.len() > 255) {
            return Err(OpenError::TooLong);
        }
        let folder = Arc::new(self.folder_at(folders)?);
        Ok(FilePlace { folder, name: (*name).to_owned(), relative })
    }

    /// Opens a folder below the root; what is missing on the way is created.
    fn folder_at(&self, parts: &[&OsStr]) -> Result<OwnedFd, OpenError> {
        let mut path = PathBuf::from(".");
        let mut folder = self.resolve_folder(path.as_os_str())?;
        for part in parts {
            path.push(part);
            folder = match self.resolve_folder(path.as_os_str()) {
                Err(OpenError::NotFound) => {
                    match mkdirat(&folder, *part, Mode::RWXU | Mode::RWXG | Mode::RWXO) {
                        // Another one may have created it at this moment.
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(Errno::ACCESS | Errno::PERM | Errno::ROFS) => return Err(OpenError::Denied),
                        Err(error) => return Err(OpenError::Io(io::Error::from(error))),
                    }
                    self.resolve_folder(path.as_os_str())?
                }
                folder => folder?,
            };
        }
        Ok(folder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn place_is_below_the_root_and_keeps_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let (base, outside) = (folder.path().join("root"), folder.path().join("outside"));
        fs::create_dir_all(base.join("a")).unwrap();
        fs::create_dir(&outside).unwrap();
        symlink(&outside, base.join("out")).unwrap();
        symlink("a", base.join("in")).unwrap();
        fs::write(base.join("file"), "").unwrap();
        let root = Root::new(&base).unwrap();
        for (name, expected) in
            [("f", "f"), ("/f", "f"), ("a//./f", "a/f"), ("new/deep/f", "new/deep/f"), ("in/f", "in/f")]
        {
            let place = root.place(name.as_bytes()).unwrap();
            assert_eq!(place.relative(), Path::new(expected));
            fs::write(place.path(), name).unwrap();
            assert_eq!(fs::read_to_string(base.join(expected)).unwrap(), name);
            fs::remove_file(base.join(expected)).unwrap();
        }
        for name in
            ["", "/", "a/", ".", "../f", "a/../f", "out/f", "file/f", &"x".repeat(256), &"x/".repeat(3000)]
        {
            assert!(root.place(name.as_bytes()).is_err(), "{name}");
        }
        assert!(fs::read_dir(&outside).unwrap().next().is_none());
        // A folder that is moved takes its files along.
        let place = root.place(b"a/f").unwrap();
        fs::rename(base.join("a"), base.join("b")).unwrap();
        symlink(&outside, base.join("a")).unwrap();
        fs::write(place.path(), "x").unwrap();
        assert!(base.join("b/f").exists());
    }
}
