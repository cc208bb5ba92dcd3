//! How far the download of a tree is, and what it has done in the end.

use std::path::PathBuf;
use std::time::Duration;

/// How far the download of a tree is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct TreeProgress {
    /// Files that are in place.
    pub files: u64,
    /// Files that were found so far.
    pub found_files: u64,
    /// Bytes that were received.
    pub bytes: u64,
    /// Bytes of the files that were found so far.
    pub found_bytes: u64,
    /// Whether there may be more than what was found.
    pub is_listing: bool,
    /// Entries that failed.
    pub failed: u64,
    /// Time since the transfer was started.
    pub elapsed: Duration,
}

/// What a finished download of a tree has done.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct TreeReport {
    /// Files that were received.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that were there already, by size and modification time.
    pub unchanged: u64,
    /// Directories that are there now.
    pub directories: u64,
    /// Links that are there now.
    pub links: u64,
    /// Entries that were left out, as they are no file, directory or link within the tree.
    pub skipped: u64,
    /// Entries that could not be downloaded.
    pub failed: u64,
    /// The first 10,000 of them.
    pub failures: Vec<FailedEntry>,
    /// Time from the start of the transfer until everything was in place.
    pub elapsed: Duration,
}

/// An entry of a tree that could not be downloaded.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct FailedEntry {
    /// Its path in the tree.
    pub path: PathBuf,
    /// Why, for people.
    pub reason: String,
    /// Whether it could not be written here, rather than read there.
    pub is_local: bool,
}
