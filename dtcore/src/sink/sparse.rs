//! Holes in a part file: where another process truncated it, and bytes were written after that end again.
//!
//! Received blocks contain no holes, as each of their bytes was written. A hole does not prove that bytes were lost, for
//! some file systems turn zeros into holes, but where there is none no truncation has removed bytes.

use std::fs::File;
use std::io;

use rustix::fs::{SeekFrom, seek};

use crate::manifest::ByteRange;
use crate::sys::filesystem;

/// The holes of a file.
#[derive(Debug)]
pub(super) struct Holes<'a> {
    file: &'a File,
    len: u64,
    /// No hole begins between the first of these offsets and the second; at the second one begins or the file ends.
    solid: (u64, u64),
}

impl<'a> Holes<'a> {
    /// The holes of `file`, which should contain at least `n_bytes`; moves the file's position.
    ///
    /// A file that occupies as much space is assumed to have no holes: searching them costs a step for each page, 50 ms for
    /// a GB in memory, and truncation frees space.
    pub(super) fn of(file: &'a File, n_bytes: u64) -> io::Result<Self> {
        let len = file.metadata()?.len();
        let end = if filesystem::allocated(file)? >= n_bytes { len } else { 0 };
        Ok(Self { file, len, solid: (0, end) })
    }

    /// Whether a truncation may have removed bytes of `range`: a hole begins in it or right after it, as truncation zeroes the
    /// rest of the last page.
    pub(super) fn may_affect(&mut self, range: ByteRange) -> bool {
        let (from, to) = self.solid;
        if !(from..to).contains(&range.start()) {
            // If the file system does not report holes, the range is assumed to be one.
            let hole = seek(self.file, SeekFrom::Hole(range.start())).unwrap_or(range.start());
            self.solid = (range.start(), hole);
        }
        let (_, hole) = self.solid;
        hole <= range.end() && hole < self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    const PAGE: u64 = 4096;

    fn file() -> File {
        let file = tempfile::tempfile_in("/dev/shm").unwrap();
        file.write_all_at(&vec![1; 64 << 10], 0).unwrap();
        file
    }

    fn affected_pages(file: &File) -> Vec<u64> {
        let mut holes = Holes::of(file, 16 * PAGE).unwrap();
        (0..16).filter(|page| holes.may_affect(ByteRange::new(page * PAGE, (page + 1) * PAGE))).collect()
    }

    #[test]
    fn complete_file_has_no_holes() {
        assert_eq!(affected_pages(&file()), [0; 0]);
    }

    #[test]
    fn truncated_and_extended_pages_are_found_with_the_page_before_them() {
        let file = file();
        file.set_len(5 * PAGE - 1).unwrap();
        file.set_len(16 * PAGE).unwrap();
        assert_eq!(affected_pages(&file), (4..16).collect::<Vec<_>>());
        // Two pages, of which the second is followed by a hole, the first is not.
        file.write_all_at(&[1; 8192], 9 * PAGE).unwrap();
        assert_eq!(affected_pages(&file), (4..16).filter(|page| *page != 9).collect::<Vec<_>>());
    }

    #[test]
    fn file_with_enough_space_is_not_searched() {
        let file = file();
        file.set_len(8 * PAGE).unwrap();
        file.set_len(16 * PAGE).unwrap();
        let mut holes = Holes::of(&file, 8 * PAGE).unwrap();
        assert!(!holes.may_affect(ByteRange::new(0, 16 * PAGE)));
    }

    #[test]
    fn ranges_in_any_order_are_found() {
        let file = file();
        file.set_len(8 * PAGE).unwrap();
        file.set_len(16 * PAGE).unwrap();
        let mut holes = Holes::of(&file, 9 * PAGE).unwrap();
        for (page, expected) in [(12, true), (2, false), (9, true), (0, false), (7, true)] {
            assert_eq!(holes.may_affect(ByteRange::new(page * PAGE, (page + 1) * PAGE)), expected, "{page}");
        }
    }
}
