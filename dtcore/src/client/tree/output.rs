//! The directory that a tree is downloaded to: everything is created below it, by descriptors.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, renameat, statat, unlinkat};
use rustix::io::Errno;

use crate::backend::OpenError;
use crate::backend::fs::{FilePlace, Root, file_nanoseconds, open_below};
use crate::client::options::Preserve;
use crate::failure::Failure;
use crate::sink::{Attributes, Durability, is_sidecar_name, sidecar_name};
use crate::sync::Lock;

/// The directory.
#[derive(Debug)]
pub(super) struct TreeOutput {
    root: Root,
    preserve: Preserve,
    durability: Durability,
    /// The last place: mostly the next one is in the same directory.
    last: Lock<Option<FilePlace>>,
}

/// What is already at a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Existing {
    /// A file with this size and modification time.
    Same,
    /// Something else.
    Different,
    Nothing,
}

impl TreeOutput {
    /// Opens the directory at `path`, and creates it if it does not exist.
    pub(super) fn open(path: &Path, preserve: Preserve, durability: Durability) -> Result<Self, Failure> {
        let failed = |source| Failure::LocalFile { action: "write to", path: path.to_owned(), source };
        fs::create_dir_all(path).map_err(failed)?;
        let root = Root::new(path).map_err(|error| failed(io::Error::other(error.to_string())))?;
        Ok(Self { root, preserve, durability, last: Lock::default() })
    }

    /// The place of a file, whose directories are created if they are missing.
    pub(super) fn place(&self, path: &Path) -> io::Result<FilePlace> {
        let name = path.file_name().unwrap_or_default();
        if is_sidecar_name(name.as_bytes()) {
            return Err(io::Error::other("names of partial files are reserved"));
        }
        if let Some(place) = self.sibling_of_last(path) {
            return Ok(place);
        }
        let place = self.root.place(path.as_os_str().as_bytes()).map_err(of_open)?;
        *self.last.lock() = Some(place.sibling(name));
        Ok(place)
    }

    /// The place of a file that is in the directory of the last one.
    fn sibling_of_last(&self, path: &Path) -> Option<FilePlace> {
        let last = self.last.lock();
        let last = last.as_ref().filter(|last| last.relative().parent() == path.parent())?;
        Some(last.sibling(path.file_name()?))
    }

    /// As [`place`](Self::place), without a link that is there: it is replaced, not followed.
    pub(super) fn cleared_place(&self, path: &Path) -> io::Result<FilePlace> {
        let place = self.place(path)?;
        if fs::symlink_metadata(place.path()).is_ok_and(|found| found.is_symlink()) {
            fs::remove_file(place.path())?;
        }
        Ok(place)
    }

    /// Creates a directory, if there is none.
    pub(super) fn create_directory(&self, path: &Path) -> io::Result<()> {
        let place = self.root.place(path.as_os_str().as_bytes()).map_err(of_open)?;
        match fs::create_dir(place.path()) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let found = fs::symlink_metadata(place.path())?;
                // A link to a directory below is one, too: what is created in it is confined as well.
                if found.is_dir() || found.is_symlink() {
                    Ok(())
                } else {
                    Err(io::ErrorKind::NotADirectory.into())
                }
            }
            result => result,
        }
    }

    /// Creates a link, in place of another one.
    pub(super) fn create_link(&self, path: &Path, target: &Path) -> io::Result<()> {
        // The path leads there as long as the place is held.
        let held = self.place(path)?;
        let place = held.path();
        match fs::symlink_metadata(&place) {
            Ok(found) if found.is_symlink() => {
                if fs::read_link(&place)? == target {
                    return Ok(());
                }
                fs::remove_file(&place)?;
            }
            Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()),
            Err(_) => {}
        }
        symlink(target, place)
    }

    /// Whether there is a file of this size and time.
    pub(super) fn existing(&self, path: &Path, size: u64, modified: i64) -> Existing {
        let found = match self.sibling_of_last(path) {
            Some(place) => statat(place.folder(), place.name(), AtFlags::SYMLINK_NOFOLLOW),
            None => self.root.stat(path.as_os_str().as_bytes()),
        };
        let Ok(found) = found else { return Existing::Nothing };
        let is_same = FileType::from_raw_mode(found.st_mode).is_file()
            && u64::try_from(found.st_size) == Ok(size)
            && file_nanoseconds(found.st_mtime, found.st_mtime_nsec) == i128::from(modified);
        if is_same { Existing::Same } else { Existing::Different }
    }

    /// Writes a small file beside its place, and puts it there.
    pub(super) fn write(&self, path: &Path, content: &[u8], modified: i64, mode: u32) -> io::Result<()> {
        let place = self.place(path)?;
        let (folder, part) = (place.folder(), sidecar_name(place.name()));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let all = Mode::from_bits_truncate(0o666);
        let mut file = match openat(folder, &part, flags, all) {
            Err(Errno::EXIST) => {
                // One that a killed client has left.
                unlinkat(folder, &part, AtFlags::empty())?;
                File::from(openat(folder, &part, flags, all)?)
            }
            file => File::from(file?),
        };
        let written = file.write_all(content).and_then(|()| self.attributes(modified, mode).apply(&file));
        let written = match self.durability {
            Durability::Synced => written.and_then(|()| file.sync_all()),
            Durability::Cached => written,
        };
        let renamed = written.and_then(|()| Ok(renameat(folder, &part, folder, place.name())?));
        renamed.inspect_err(|_| {
            // The error to report is the first one.
            let _ = unlinkat(folder, &part, AtFlags::empty());
        })
    }

    /// Gives a directory the time and mode of the remote one, when nothing is created in it any more.
    pub(super) fn finish_directory(&self, path: &Path, modified: i64, mode: u32) -> io::Result<()> {
        let place = self.root.place(path.as_os_str().as_bytes()).map_err(of_open)?;
        match open_below(place.folder(), place.name()) {
            // Something else is in its place, which was reported.
            Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::NOTDIR | Errno::LOOP)) => Ok(()),
            // Its owner must be able to resume.
            folder => self.attributes(modified, mode | 0o700).apply(&folder?),
        }
    }

    /// Those that are to be kept.
    fn attributes(&self, modified: i64, mode: u32) -> Attributes {
        Attributes {
            modified: Some(modified).filter(|_| self.preserve.times),
            mode: Some(mode).filter(|_| self.preserve.mode),
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the others have words that fit here too")]
fn of_open(error: OpenError) -> io::Error {
    match error {
        OpenError::Io(error) => error,
        OpenError::Outside => io::Error::other("a link in its path leads out of the output"),
        error => io::Error::other(error.to_string()),
    }
}

/// Whether a link at `path` with this target stays in the tree.
pub(super) fn stays_inside(path: &Path, target: &Path) -> bool {
    let mut depth = path.parent().map_or(0, |parent| parent.components().count());
    for part in target.components() {
        match part {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 => depth -= 1,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    !target.as_os_str().is_empty()
}

/// The name of an entry below the directory that is downloaded, as the server knows it.
pub(super) fn remote_name(folder: &OsStr, path: &Path) -> PathBuf {
    Path::new(folder).join(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn links_that_leave_the_tree_are_recognised() {
        for (path, target, expected) in [
            ("a", "b", true),
            ("a/b", "../c", true),
            ("a/b", "./c/../d", true),
            ("a", "..", false),
            ("a", "../x", false),
            ("a/b", "../../x", false),
            ("a/b", "c/../../../x", false),
            ("a", "/etc/passwd", false),
            ("a", "", false),
        ] {
            assert_eq!(stays_inside(Path::new(path), Path::new(target)), expected, "{path} -> {target}");
        }
    }

    #[test]
    fn nothing_is_written_outside() {
        let folder = tempfile::tempdir().unwrap();
        let (base, outside) = (folder.path().join("out"), folder.path().join("outside"));
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("f"), "before").unwrap();
        let output =
            TreeOutput::open(&base, Preserve { times: true, mode: true }, Durability::Cached).unwrap();
        symlink(&outside, base.join("link")).unwrap();
        symlink(outside.join("f"), base.join("file")).unwrap();
        assert!(output.write(Path::new("link/f"), b"x", 1, 0o600).is_err());
        assert!(output.create_directory(Path::new("link/new")).is_err());
        // The link itself is replaced.
        output.write(Path::new("file"), b"new", 7_000_000_001, 0o640).unwrap();
        assert_eq!(fs::read(outside.join("f")).unwrap(), b"before");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
        let found = fs::symlink_metadata(base.join("file")).unwrap();
        assert_eq!((found.size(), found.mtime(), found.mtime_nsec(), found.mode() & 0o777), (3, 7, 1, 0o640));
        assert_eq!(output.existing(Path::new("file"), 3, 7_000_000_001), Existing::Same);
        assert_eq!(output.existing(Path::new("file"), 3, 7_000_000_000), Existing::Different);
        assert_eq!(output.existing(Path::new("missing"), 3, 7_000_000_000), Existing::Nothing);
        fs::create_dir(base.join("folder")).unwrap();
        assert!(output.write(Path::new("folder"), b"", 1, 0o600).is_err());
        assert!(output.write(Path::new("x.dtpart"), b"", 1, 0o600).is_err());
        assert!(output.create_directory(Path::new("file")).is_err());
    }
}
