//! Content in memory, served like a file.

use std::fmt::Debug;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;

use super::{Object, ObjectIdentity};
use crate::digest::Blake3Digest;
use crate::num::{to_u64, to_usize};

/// Content in memory, and what is held as long as it is served.
#[derive(Debug)]
pub(crate) struct MemoryObject {
    content: Vec<u8>,
    identity: ObjectIdentity,
    _held: Box<dyn Debug + Send + Sync>,
}

impl MemoryObject {
    pub(crate) fn new(content: Vec<u8>, held: impl Debug + Send + Sync + 'static) -> Self {
        // The same content has the same identity, wherever and whenever it is made.
        let digest: [u8; 32] = Blake3Digest::of(&content).into();
        let inode = digest.first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
        let size = to_u64(content.len());
        let identity = ObjectIdentity { device: 0, inode, size, modified: 0, changed: 0 };
        Self { content, identity, _held: Box::new(held) }
    }
}

impl Object for MemoryObject {
    fn identity(&self) -> ObjectIdentity {
        self.identity
    }

    fn current_identity(&self) -> io::Result<ObjectIdentity> {
        // It does not change, but no digest of it is worth remembering.
        Ok(ObjectIdentity { changed: 1, ..self.identity })
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.content.get(to_usize(offset)..).unwrap_or_default().read(buffer)
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}
