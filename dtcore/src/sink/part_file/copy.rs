//! Where locks do not exclude: a file that no other transfer has open, to resume in.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::lock::{ClaimedFile, copy_permissions, create_locked};
use crate::digest::to_hex;
use crate::failure::Failure;
use crate::manifest::ByteRange;
use crate::num::to_u64;
use crate::sink::journal::{Checked, JournalContents, Watch, recorded_ranges};
use crate::sink::sidecar::mark;
use crate::sys::{PIECE, PieceReader};

/// A copy of a part file under a name that no other transfer uses; removed if it is dropped.
#[derive(Debug)]
pub(super) struct PrivateCopy {
    file: File,
    /// `None` once it has another name.
    path: Option<PathBuf>,
}

impl PrivateCopy {
    /// A copy of the blocks that the journal records, not verified; `None` if `watch` cancels it.
    pub(super) fn of_blocks(
        part: &File,
        (path, output): (&Path, &Path),
        contents: &JournalContents,
        watch: &mut Watch<'_>,
    ) -> Result<Option<Self>, Failure> {
        let failed = |source| Failure::local("copy the blocks of", path, 0, source);
        let copy = Self::create(path, output).map_err(failed)?;
        let ranges = recorded_ranges(contents);
        let of = ranges.iter().map(ByteRange::len).sum();
        let mut bytes = 0;
        for range in ranges {
            if watch(Checked { bytes, of }).is_break() {
                return Ok(None);
            }
            copy_range(part, &copy.file, range).map_err(failed)?;
            bytes += range.len();
        }
        Ok(Some(copy))
    }

    fn create(path: &Path, output: &Path) -> io::Result<Self> {
        let private = private_path(path)?;
        let Some(ClaimedFile { file, .. }) = create_locked(&private)? else {
            return Err(io::ErrorKind::AlreadyExists.into());
        };
        let copy = Self { file, path: Some(private) };
        mark(&copy.file);
        copy_permissions(output, &copy.file)?;
        Ok(copy)
    }

    /// The copy.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Gives it the name of the part file that it was copied from.
    pub(super) fn replace(mut self, path: &Path) -> Result<File, Failure> {
        let failed = |source| Failure::local("replace", path, 0, source);
        if let Some(private) = &self.path {
            fs::rename(private, path).map_err(failed)?;
            self.path = None;
        }
        self.file.try_clone().map_err(failed)
    }
}

impl Drop for PrivateCopy {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
    }
}

/// Copies a range; the bytes after the end of `from` are not there.
fn copy_range(from: &File, to: &File, range: ByteRange) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    let mut at = range.start();
    let mut pieces = PieceReader::new(range, |buffer, offset| from.read_at(buffer, offset));
    loop {
        // What cannot be read is fetched again.
        let Ok(piece @ [_, ..]) = pieces.next(&mut buffer) else { return Ok(()) };
        to.write_all_at(piece, at)?;
        at += to_u64(piece.len());
    }
}

/// A name next to the part file's that no file has, and as long, as that may have the maximum length.
pub(super) fn private_path(part: &Path) -> io::Result<PathBuf> {
    let mut random = [0; 3];
    getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
    let path = part.with_extension(to_hex(&random));
    match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(path),
        Err(error) => Err(error),
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
    }
}
