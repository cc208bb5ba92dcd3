//! A file that is being sent, and which version of which file it is.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;

use rustix::fs::Advice;

/// What tells one version of a file from another; times in nanoseconds since 1970.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct FileIdentity {
    device: u64,
    inode: u64,
    size: u64,
    modified: i128,
    changed: i128,
}

impl FileIdentity {
    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let nanoseconds = |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            changed: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    /// The file's number in its file system.
    pub(crate) fn inode(&self) -> u64 {
        self.inode
    }

    /// The size in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// When the content last changed, in nanoseconds since 1970; any owner can set it.
    pub(crate) fn modified(&self) -> i128 {
        self.modified
    }

    /// When content, owner, mode or link count last changed, in nanoseconds since 1970; no program can set it.
    pub(crate) fn changed(&self) -> i128 {
        self.changed
    }
}

/// A regular file open for reading, as it was when it was opened.
#[derive(Debug)]
pub(crate) struct SourceFile {
    file: File,
    identity: FileIdentity,
}

impl SourceFile {
    pub(crate) fn new(file: File) -> io::Result<Self> {
        let identity = FileIdentity::of(&file)?;
        // Every stream reads its part in order; on a cold disk this doubles the kernel's read-ahead. It is only
        // advice, and not every file system takes it.
        let _ = rustix::fs::fadvise(&file, 0, None, Advice::Sequential);
        Ok(Self { file, identity })
    }

    /// The file's size in bytes when it was opened.
    pub(crate) fn size(&self) -> u64 {
        self.identity.size
    }

    /// Which version of which file this is.
    pub(crate) fn identity(&self) -> FileIdentity {
        self.identity
    }

    /// What a fresh look at the file says.
    pub(crate) fn current_identity(&self) -> io::Result<FileIdentity> {
        FileIdentity::of(&self.file)
    }

    /// Whether the content is still the one that was opened, as far as size and modification time tell.
    ///
    /// The change time does not count: removing or renaming the file touches it, and the content stays.
    pub(crate) fn unchanged(&self) -> bool {
        self.current_identity().is_ok_and(|now| self.same_content(&now))
    }

    /// Whether `other` has the content that was opened.
    pub(crate) fn same_content(&self, other: &FileIdentity) -> bool {
        (self.identity.size, self.identity.modified) == (other.size, other.modified)
    }
}

impl AsFd for SourceFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn writing_is_a_change_and_removing_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        std::fs::write(&path, "abc").unwrap();
        let source = SourceFile::new(File::open(&path).unwrap()).unwrap();
        let mut writer = File::options().append(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(source.unchanged());
        writer.write_all(b"d").unwrap();
        assert!(!source.unchanged());
    }
}
