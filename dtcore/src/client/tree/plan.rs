//! Which files are received together, and which alone.

use std::path::PathBuf;

use crate::num::to_u64;
use crate::proto::{MAX_PACK_BODY, MAX_PACK_BYTES, MAX_PACK_FILES};

/// Files up to this size share a transfer.
const SMALL: u64 = 256 << 10;

/// A pack is complete at this size. Larger ones need fewer requests, smaller ones keep all streams busy to the end.
const PACK_BYTES: u64 = 2 << 20;

/// How much of a request's body the names may take, of which every byte may be escaped.
const NAMES: usize = MAX_PACK_BODY / 8;

const _: () = assert!(PACK_BYTES + SMALL <= MAX_PACK_BYTES, "no pack is too large for a server");

/// A file to receive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct WantedFile {
    pub(super) path: PathBuf,
    pub(super) size: u64,
}

/// Files that are received by one transfer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Task {
    One(WantedFile),
    Pack(Vec<WantedFile>),
}

/// Collects small files.
#[derive(Debug, Default)]
pub(super) struct Planner {
    files: Vec<WantedFile>,
    bytes: u64,
    names: usize,
}

impl Planner {
    /// Adds a file; returns what can be received now.
    pub(super) fn add(&mut self, file: WantedFile) -> Option<Task> {
        if file.size > SMALL {
            return Some(Task::One(file));
        }
        self.bytes += file.size;
        self.names += file.path.as_os_str().len() + 4;
        self.files.push(file);
        let is_full = self.bytes >= PACK_BYTES
            || self.names >= NAMES
            || to_u64(self.files.len()) >= to_u64(MAX_PACK_FILES);
        if is_full { self.rest() } else { None }
    }

    /// What is left.
    pub(super) fn rest(&mut self) -> Option<Task> {
        let Self { files, .. } = std::mem::take(self);
        if files.is_empty() { None } else { Some(Task::Pack(files)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_files_are_collected_up_to_a_limit() {
        let file = |size| WantedFile { path: "f".into(), size };
        let mut planner = Planner::default();
        assert_eq!(planner.add(file(SMALL + 1)), Some(Task::One(file(SMALL + 1))));
        for n in 0..8 {
            let full = planner.add(file(SMALL));
            assert_eq!(full.is_some(), n == 7, "{n}");
        }
        assert_eq!(planner.rest(), None);
        let packs = (0..3000).filter_map(|_| planner.add(file(1))).count();
        assert_eq!(packs, 2);
        let Some(Task::Pack(rest)) = planner.rest() else { panic!() };
        assert_eq!(rest.len(), 3000 - 2 * MAX_PACK_FILES);
    }
}
