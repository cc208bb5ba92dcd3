//! Holes in a part file: where another process has cut it, and something was written behind the cut again.
//!
//! What is received leaves none: every byte of it was written. So a hole does not prove that bytes were lost, for some
//! file systems turn zeros into holes, but without one a cut cannot have taken any.

use std::fs::File;
use std::io;

use rustix::fs::{SeekFrom, seek};

use crate::manifest::ByteRange;
use crate::sys::filesystem;

/// The holes of one file as it is now.
#[derive(Debug)]
pub(super) struct Holes<'a> {
    file: &'a File,
    len: u64,
    /// There is none from the first of these bytes to the second, where one begins or the file ends.
    without: (u64, u64),
}

impl<'a> Holes<'a> {
    /// Looks at `file`, which should have `n_bytes` at least; this moves its position.
    ///
    /// A file that has room for as many is taken for one without holes: to look for them costs a step for each page, 50 ms
    /// for a GB in memory, and what is cut off a file takes its room with it.
    pub(super) fn of(file: &'a File, n_bytes: u64) -> io::Result<Self> {
        let len = file.metadata()?.len();
        let end = if filesystem::allocated(file)? >= n_bytes { len } else { 0 };
        Ok(Self { file, len, without: (0, end) })
    }

    /// Whether a cut may have taken bytes of `range`: a hole begins in it, or right behind it, where the cut has left the
    /// beginning of a page and zeros in the rest of it.
    pub(super) fn may_have_cut(&mut self, range: ByteRange) -> bool {
        let (from, to) = self.without;
        if !(from..to).contains(&range.start()) {
            // Where a file system cannot tell, the whole range is taken for one.
            let hole = seek(self.file, SeekFrom::Hole(range.start())).unwrap_or(range.start());
            self.without = (range.start(), hole);
        }
        let (_, hole) = self.without;
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

    fn cut(file: &File) -> Vec<u64> {
        let mut holes = Holes::of(file, 16 * PAGE).unwrap();
        (0..16).filter(|page| holes.may_have_cut(ByteRange::new(page * PAGE, (page + 1) * PAGE))).collect()
    }

    #[test]
    fn a_file_that_is_whole_has_none() {
        assert_eq!(cut(&file()), [0; 0]);
    }

    #[test]
    fn what_was_cut_and_grown_again_is_found_and_the_page_before_it() {
        let file = file();
        file.set_len(5 * PAGE - 1).unwrap();
        file.set_len(16 * PAGE).unwrap();
        assert_eq!(cut(&file), (4..16).collect::<Vec<_>>());
        // Two pages, of which only the second has a hole behind it.
        file.write_all_at(&[1; 8192], 9 * PAGE).unwrap();
        assert_eq!(cut(&file), (4..16).filter(|page| *page != 9).collect::<Vec<_>>());
    }

    #[test]
    fn a_file_that_has_room_for_what_it_should_have_is_not_looked_through() {
        let file = file();
        file.set_len(8 * PAGE).unwrap();
        file.set_len(16 * PAGE).unwrap();
        let mut holes = Holes::of(&file, 8 * PAGE).unwrap();
        assert!(!holes.may_have_cut(ByteRange::new(0, 16 * PAGE)));
    }

    #[test]
    fn ranges_may_come_in_any_order() {
        let file = file();
        file.set_len(8 * PAGE).unwrap();
        file.set_len(16 * PAGE).unwrap();
        let mut holes = Holes::of(&file, 9 * PAGE).unwrap();
        for (page, expected) in [(12, true), (2, false), (9, true), (0, false), (7, true)] {
            assert_eq!(
                holes.may_have_cut(ByteRange::new(page * PAGE, (page + 1) * PAGE)),
                expected,
                "{page}"
            );
        }
    }
}
