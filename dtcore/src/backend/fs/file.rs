//! A regular file that is being sent.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::fs::Advice;

use crate::backend::{Object, ObjectIdentity};

/// A regular file open for reading, as it was when it was opened.
#[derive(Debug)]
pub(crate) struct SourceFile {
    file: File,
    identity: ObjectIdentity,
    is_sparse: bool,
    mode: u32,
}

/// The unit in which the system counts what a file takes on the disk.
const SECTOR: u64 = 512;

impl SourceFile {
    pub(crate) fn new(file: File) -> io::Result<Self> {
        let identity = identity_of(&file)?;
        let metadata = file.metadata()?;
        let (is_sparse, mode) = (metadata.blocks() * SECTOR < identity.size, metadata.mode() & 0o777);
        // Every stream reads its part in order; on a cold disk this doubles the kernel's read-ahead. It is only
        // advice, and not every file system takes it.
        let _ = rustix::fs::fadvise(&file, 0, None, Advice::Sequential);
        Ok(Self { file, identity, is_sparse, mode })
    }
}

impl Object for SourceFile {
    fn identity(&self) -> ObjectIdentity {
        self.identity
    }

    fn current_identity(&self) -> io::Result<ObjectIdentity> {
        identity_of(&self.file)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }

    fn mode(&self) -> Option<u32> {
        Some(self.mode)
    }

    fn is_sparse(&self) -> bool {
        self.is_sparse
    }
}

pub(super) fn identity_of(file: &File) -> io::Result<ObjectIdentity> {
    let metadata = file.metadata()?;
    let nanoseconds = |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
    Ok(ObjectIdentity {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        modified: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
        changed: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn writing_changes_a_file_and_removing_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        std::fs::write(&path, "abc").unwrap();
        let source = SourceFile::new(File::open(&path).unwrap()).unwrap();
        let mut writer = File::options().append(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(source.is_unchanged());
        writer.write_all(b"d").unwrap();
        assert!(!source.is_unchanged());
    }
}
