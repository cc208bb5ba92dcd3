//! What is served: objects that are opened by name and read at any offset.
//!
//! All calls may wait for a disk: make them on a thread that may block.

pub(crate) mod fs;
mod growing;
mod memory;
mod reader;

use std::fmt::Debug;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

pub(crate) use growing::GrowingObject;
pub(crate) use memory::MemoryObject;
pub(crate) use reader::read_through;

/// A set of objects with names, such as a directory.
pub(crate) trait Backend: Send + Sync + Debug + 'static {
    /// What a name opens.
    type Object: Object;

    /// Opens the first of `names` that exists, and returns it with its name.
    ///
    /// # Errors
    /// An object that exists but cannot be read ends the search: the next name is a different object, and serving that
    /// instead would be a mistake that nobody notices. Otherwise the most informative error is returned.
    fn open(&self, names: &[Vec<u8>]) -> Result<(Self::Object, PathBuf), OpenError>;
}

/// One version of a sequence of bytes, open for reading.
pub(crate) trait Object: Send + Sync + Debug + 'static {
    /// The identity of the version that was opened.
    fn identity(&self) -> ObjectIdentity;

    /// The identity of the version that exists now.
    fn current_identity(&self) -> io::Result<ObjectIdentity>;

    /// Reads at most `buffer.len()` bytes from `offset`; fewer are no sign of the end, 0 bytes are.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// The object's file, for `sendfile` and questions about the page cache; `None` if it is not a file.
    fn as_fd(&self) -> Option<BorrowedFd<'_>>;

    /// Whether it may grow, and was seen to have.
    fn has_grown(&self) -> bool {
        false
    }

    /// The permission bits when it was opened, without setuid and the like.
    fn mode(&self) -> Option<u32> {
        None
    }

    /// Whether it had holes when it was opened. Where memory holds the file, a mapping would fill them.
    fn is_sparse(&self) -> bool {
        false
    }

    /// The size in bytes when it was opened.
    fn size(&self) -> u64 {
        self.identity().size
    }

    /// Whether the content is still the one that was opened, as far as size and modification time show it.
    fn is_unchanged(&self) -> bool {
        self.current_identity().is_ok_and(|now| self.identity().same_content(&now))
    }
}

/// Distinguishes one version of one object from all others; times in nanoseconds since 1970.
///
/// A backend without devices and inodes puts hashes of name and version in their place.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct ObjectIdentity {
    device: u64,
    inode: u64,
    size: u64,
    modified: i128,
    changed: i128,
}

impl ObjectIdentity {
    /// The object's number in its file system.
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

    /// This version, of which only the beginning counts, up to the size of `former`: the content is that of `former`, and everything that
    /// shows a change is of now.
    fn as_prefix_of(self, former: &Self) -> Self {
        Self { size: former.size, modified: former.modified, ..self }
    }

    /// Whether both identities belong to the same content.
    ///
    /// The change time does not count: removing or renaming a file changes it, and the content stays.
    pub(crate) fn same_content(&self, other: &Self) -> bool {
        (self.size, self.modified) == (other.size, other.modified)
    }
}

/// Why a name does not open.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("no such file")]
    NotFound,
    #[error("it is a directory")]
    Directory,
    #[error("a part of its path is not a directory")]
    NoFolder,
    #[error("not a regular file")]
    NotRegular,
    #[error("outside the served folder")]
    Outside,
    #[error("the name is too long")]
    TooLong,
    #[error("a folder in its path is not accessible")]
    Denied,
    #[error("permission denied")]
    Unreadable,
    #[error("its size is not known, and it has over 1 MiB or no end")]
    Endless,
    #[error(transparent)]
    Io(#[from] io::Error),
}
