//! The part file: everything is received into a file beside the output, which takes the output's place at the end.
//!
//! The part file's name follows from the output's, so that what a killed transfer left is found and reused, never
//! heaped up. A lock on it keeps a second transfer to the same output away.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, OFlags, RenameFlags, flock, renameat_with};
use rustix::io::Errno;

use super::space;
use crate::error::TransferError;
use crate::integrity::Md5Digest;

/// What becomes of an output that exists already.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Clobber {
    /// It is replaced when the new one is complete and verified.
    #[default]
    Replace,
    /// It stays, and the transfer fails.
    Refuse,
}

/// The suffix of part files.
const SUFFIX: &str = ".dtpart";

/// The longest file name that Linux file systems take, in bytes.
const MAX_NAME: usize = 255;

/// A locked file beside the output; removed when dropped, unless it was published.
#[derive(Debug)]
pub(crate) struct PartFile {
    file: File,
    path: PathBuf,
    output: PathBuf,
    clobber: Clobber,
    published: bool,
}

impl PartFile {
    /// Creates the part file for `output`, or takes over the one that a killed transfer left, emptied.
    ///
    /// # Errors
    /// [`TransferError::OutputExists`], [`TransferError::OutputInUse`], or a local file error.
    pub(crate) fn create(output: &Path, clobber: Clobber) -> Result<Self, TransferError> {
        let output = resolve(output, clobber)?;
        let path = part_path(&output);
        let failed = |action| {
            let path = path.clone();
            move |source| TransferError::local(action, path, 0, source)
        };
        // Each further round means that another transfer removed or published the file we had just opened.
        for _ in 0..100 {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o666)
                .custom_flags(i32::try_from(OFlags::NOFOLLOW.bits() | OFlags::NONBLOCK.bits()).unwrap_or(0))
                .open(&path)
                .map_err(failed("create"))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Err(TransferError::OutputInUse { path: output }),
                Err(error) => return Err(failed("lock")(error.into())),
            }
            let opened = file.metadata().map_err(failed("inspect"))?;
            if !is_named(&file, &path) {
                continue;
            }
            // In a folder that others may write to, a file planted under this name would become our output.
            if !opened.is_file() || opened.nlink() != 1 || opened.uid() != rustix::process::geteuid().as_raw()
            {
                let foreign = io::Error::other("it is not a file of yours; remove it");
                return Err(failed("take over")(foreign));
            }
            file.set_len(0).map_err(failed("empty"))?;
            protect_like(&output, &file).map_err(failed("set the permissions of"))?;
            return Ok(Self { file, path, output, clobber, published: false });
        }
        Err(TransferError::OutputInUse { path: output })
    }

    /// The file to receive into.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Where the part file is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Cuts the file to `len` bytes and puts it in the output's place, atomically.
    ///
    /// With `durable` the bytes and the name are on the disk before this returns.
    pub(crate) fn publish(mut self, len: u64, durability: Durability) -> Result<PathBuf, TransferError> {
        let local = |action, path: &Path| {
            let path = path.to_owned();
            move |source| TransferError::local(action, path, len, source)
        };
        self.file.set_len(len).map_err(local("cut to length", &self.path))?;
        // Some file systems report a full disk or a quota only when the bytes are written out.
        if durability == Durability::Synced
            || space::defers_errors(&self.file).map_err(local("inspect", &self.path))?
        {
            self.file.sync_all().map_err(local("sync", &self.path))?;
        }
        // The digest was that of the open file, and a name can be moved to another one.
        if !is_named(&self.file, &self.path) {
            return Err(self.taken_away());
        }
        self.rename()?;
        if !is_named(&self.file, &self.output) {
            return Err(self.taken_away());
        }
        self.published = true;
        if durability == Durability::Synced {
            let folder = folder_of(&self.output);
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(local("sync", folder))?;
        }
        Ok(self.output.clone())
    }

    fn taken_away(&self) -> TransferError {
        let source = io::Error::other("another process removed or replaced it meanwhile");
        TransferError::LocalFile { action: "publish", path: self.path.clone(), source }
    }

    fn rename(&self) -> Result<(), TransferError> {
        let result = match self.clobber {
            Clobber::Replace => fs::rename(&self.path, &self.output),
            Clobber::Refuse => {
                match renameat_with(CWD, &self.path, CWD, &self.output, RenameFlags::NOREPLACE) {
                    // This file system does not know the flag; a link does not replace either.
                    Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                        fs::hard_link(&self.path, &self.output).and_then(|()| fs::remove_file(&self.path))
                    }
                    result => result.map_err(io::Error::from),
                }
            }
        };
        result.map_err(|source| {
            if source.kind() == io::ErrorKind::AlreadyExists {
                TransferError::OutputExists { path: self.output.clone() }
            } else {
                TransferError::local("rename into place", &self.output, 0, source)
            }
        })
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        if !self.published && is_named(&self.file, &self.path) {
            // Nobody is left to hear of a failure.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether a published output survives a power cut at once, or when the system gets round to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Durability {
    /// The system writes it out in its own time.
    #[default]
    Cached,
    /// It is on the disk before the transfer reports success.
    Synced,
}

/// Whether `path` names the open `file`, and not another one that took its name.
fn is_named(file: &File, path: &Path) -> bool {
    let identity = |found: fs::Metadata| (found.dev(), found.ino());
    let opened = file.metadata().map(identity);
    opened.is_ok_and(|opened| fs::symlink_metadata(path).map(identity).is_ok_and(|named| named == opened))
}

/// Gives the part file the permissions of the output it will replace: who could not read the old one shall not be able
/// to read the new one, at any time.
fn protect_like(output: &Path, file: &File) -> io::Result<()> {
    let Ok(replaced) = fs::metadata(output) else { return Ok(()) };
    let mode = replaced.permissions().mode() & 0o777;
    if file.metadata()?.permissions().mode() & 0o777 == mode {
        return Ok(());
    }
    match file.set_permissions(Permissions::from_mode(mode)) {
        // This file system has no permissions to protect.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
        result => result,
    }
}

/// How many links are followed from the output's name, as in the kernel.
const MAX_LINKS: u32 = 40;

/// Follows links to the file they stand for and refuses what cannot be replaced.
fn resolve(output: &Path, clobber: Clobber) -> Result<PathBuf, TransferError> {
    let refused = |source| TransferError::LocalFile { action: "write", path: output.to_owned(), source };
    if output.file_name().is_none() || output.as_os_str().as_bytes().ends_with(b"/") {
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
fn part_path(output: &Path) -> PathBuf {
    let name = output.file_name().unwrap_or_default().as_bytes();
    let mut part = name.to_vec();
    if part.len() + SUFFIX.len() > MAX_NAME {
        part.truncate(MAX_NAME - SUFFIX.len() - 33);
        part.extend_from_slice(format!(".{}", Md5Digest::of(name)).as_bytes());
    }
    part.extend_from_slice(SUFFIX.as_bytes());
    output.with_file_name(OsString::from_vec(part))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn publish(mut part: PartFile, content: &[u8]) -> Result<PathBuf, TransferError> {
        part.file.write_all(content).unwrap();
        part.publish(u64::try_from(content.len()).unwrap(), Durability::Synced)
    }

    fn names(folder: &Path) -> Vec<String> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn the_output_appears_only_when_published() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("out");
        fs::write(&output, "before").unwrap();
        fs::set_permissions(&output, Permissions::from_mode(0o640)).unwrap();
        let part = PartFile::create(&output, Clobber::Replace).unwrap();
        assert_eq!(part.file().metadata().unwrap().permissions().mode() & 0o777, 0o640);
        drop(part);
        assert_eq!(fs::read(&output).unwrap(), b"before");
        publish(PartFile::create(&output, Clobber::Replace).unwrap(), b"after").unwrap();
        assert_eq!(fs::read(&output).unwrap(), b"after");
        assert_eq!(fs::metadata(&output).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(names(folder.path()), ["out"]);
    }

    #[test]
    fn a_second_transfer_to_the_same_output_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("out");
        let first = PartFile::create(&output, Clobber::Replace).unwrap();
        let second = PartFile::create(&output, Clobber::Replace).unwrap_err();
        assert!(matches!(second, TransferError::OutputInUse { .. }));
        drop(first);
        assert!(PartFile::create(&output, Clobber::Replace).is_ok());
    }

    #[test]
    fn a_part_file_that_was_replaced_is_neither_published_nor_removed() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("out");
        let first = PartFile::create(&output, Clobber::Replace).unwrap();
        fs::remove_file(first.path()).unwrap();
        let second = PartFile::create(&output, Clobber::Replace).unwrap();
        assert!(matches!(publish(first, b"first"), Err(TransferError::LocalFile { .. })));
        assert!(!output.exists());
        publish(second, b"second").unwrap();
        assert_eq!(fs::read(&output).unwrap(), b"second");
        assert_eq!(names(folder.path()), ["out"]);
    }

    #[test]
    fn an_output_that_must_stay_stays() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("out");
        let part = PartFile::create(&output, Clobber::Refuse).unwrap();
        fs::write(&output, "came in between").unwrap();
        assert!(matches!(publish(part, b"late"), Err(TransferError::OutputExists { .. })));
        assert_eq!(fs::read(&output).unwrap(), b"came in between");
        assert!(matches!(
            PartFile::create(&output, Clobber::Refuse),
            Err(TransferError::OutputExists { .. })
        ));
        assert_eq!(names(folder.path()), ["out"]);
    }

    #[test]
    fn what_a_killed_transfer_left_is_reused_and_what_others_planted_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("out");
        fs::write(folder.path().join("out.dtpart"), "left over").unwrap();
        publish(PartFile::create(&output, Clobber::Replace).unwrap(), b"new").unwrap();
        assert_eq!(fs::read(&output).unwrap(), b"new");
        std::os::unix::fs::symlink("elsewhere", folder.path().join("out.dtpart")).unwrap();
        assert!(PartFile::create(&output, Clobber::Replace).is_err());
    }

    #[test]
    fn links_are_followed_and_folders_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (link, target) = (folder.path().join("link"), folder.path().join("target"));
        fs::write(&target, "old").unwrap();
        std::os::unix::fs::symlink("target", &link).unwrap();
        publish(PartFile::create(&link, Clobber::Replace).unwrap(), b"new").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        let dangling = folder.path().join("dangling");
        std::os::unix::fs::symlink("new", &dangling).unwrap();
        assert!(matches!(
            PartFile::create(&dangling, Clobber::Refuse),
            Err(TransferError::OutputExists { .. })
        ));
        publish(PartFile::create(&dangling, Clobber::Replace).unwrap(), b"new").unwrap();
        assert_eq!(fs::read(folder.path().join("new")).unwrap(), b"new");
        std::os::unix::fs::symlink("loop", folder.path().join("loop")).unwrap();
        let (looping, folder_to_be) = (folder.path().join("loop"), folder.path().join("later/"));
        for path in [folder.path(), Path::new("/"), Path::new(".."), &looping, &folder_to_be] {
            assert!(PartFile::create(path, Clobber::Replace).is_err(), "{}", path.display());
        }
    }

    #[test]
    fn long_names_get_a_part_file_too() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("n".repeat(255));
        publish(PartFile::create(&output, Clobber::Replace).unwrap(), b"x").unwrap();
        assert_eq!(names(folder.path()), ["n".repeat(255)]);
    }
}
