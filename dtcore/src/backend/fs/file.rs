//! A regular file that is being sent.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt};

use bytes::Bytes;
use rustix::fs::{Advice, OFlags, fcntl_getfl, fcntl_setfl};

use crate::backend::{Object, ObjectIdentity};
use crate::num::{to_u64, to_usize};

/// A regular file open for reading, as it was when it was opened.
#[derive(Debug)]
pub(crate) struct SourceFile {
    file: File,
    identity: ObjectIdentity,
    is_sparse: bool,
    mode: u32,
    /// What it contains, if that is not as much as its size says.
    content: Option<Bytes>,
}

/// The largest file that may have less or more bytes than its size says, as those have that the kernel makes up.
const MAX_MADE_UP: u64 = 64 << 10;

/// The most that is read of a file whose size is wrong. Each transfer of such a file holds it in memory.
const MAX_CONTENT: u64 = 1 << 20;

/// The unit in which the system counts what a file takes on the disk.
const SECTOR: u64 = 512;

impl SourceFile {
    pub(crate) fn new(file: File) -> io::Result<Self> {
        let mut identity = identity_of(&file)?;
        let metadata = file.metadata()?;
        let (is_sparse, mode) = (metadata.blocks() * SECTOR < identity.size, metadata.mode() & 0o777);
        // Every stream reads its part in order; on a cold disk this doubles the kernel's read-ahead. It is only
        // advice, and not every file system takes it.
        let _ = rustix::fs::fadvise(&file, 0, None, Advice::Sequential);
        let is_doubtful = identity.size == 0 || metadata.blocks() == 0 && identity.size <= MAX_MADE_UP;
        let content = is_doubtful.then(|| content_of(&file)).transpose()?;
        let content = content.filter(|content| to_u64(content.len()) != identity.size);
        if let Some(content) = &content {
            identity.size = to_u64(content.len());
        }
        Ok(Self { file, identity, is_sparse, mode, content })
    }
}

impl Object for SourceFile {
    fn identity(&self) -> ObjectIdentity {
        self.identity
    }

    fn current_identity(&self) -> io::Result<ObjectIdentity> {
        match &self.content {
            // It stays as it was read. That it has changed lets no digest be remembered: other content may have the same identity.
            Some(_) => Ok(ObjectIdentity { changed: self.identity.changed + 1, ..self.identity }),
            None => identity_of(&self.file),
        }
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match &self.content {
            Some(content) => content.get(to_usize(offset)..).unwrap_or_default().read(buffer),
            None => self.file.read_at(buffer, offset),
        }
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.content.is_none().then(|| self.file.as_fd())
    }

    fn mode(&self) -> Option<u32> {
        Some(self.mode)
    }

    fn is_sparse(&self) -> bool {
        self.is_sparse
    }
}

/// What a file contains whose size may be wrong, without waiting for more of it.
///
/// # Errors
/// [`io::ErrorKind::FileTooLarge`] if it is too long, or has no end; and the system's.
fn content_of(file: &File) -> io::Result<Bytes> {
    let flags = fcntl_getfl(file)?;
    fcntl_setfl(file, flags | OFlags::NONBLOCK)?;
    let mut content = Vec::new();
    let read = file.take(MAX_CONTENT + 1).read_to_end(&mut content);
    fcntl_setfl(file, flags)?;
    match read {
        Ok(_) if to_u64(content.len()) <= MAX_CONTENT => Ok(content.into()),
        Ok(_) => Err(io::ErrorKind::FileTooLarge.into()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(io::ErrorKind::FileTooLarge.into()),
        Err(error) => Err(error),
    }
}

/// A time of a file in nanoseconds since 1970: of an absurd one, more than 64 bits have.
pub(crate) fn file_nanoseconds(seconds: i64, rest: impl Into<i128>) -> i128 {
    i128::from(seconds) * 1_000_000_000 + rest.into()
}

fn identity_of(file: &File) -> io::Result<ObjectIdentity> {
    let metadata = file.metadata()?;
    Ok(ObjectIdentity {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        modified: file_nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
        changed: file_nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
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
