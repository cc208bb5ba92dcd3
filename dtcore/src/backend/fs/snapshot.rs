//! Files whose size says nothing about their content, as in `/proc` and `/sys`: they are read once, and sent from memory.

use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use super::SourceFile;
use super::file::identity_of;
use crate::backend::{MAX_SNAPSHOT, Object, ObjectIdentity, OpenError};
use crate::digest::Blake3Digest;
use crate::num::to_u64;

/// How many snapshots are in memory at once.
const MAX_SNAPSHOTS: usize = 16;

/// The content of a file as it was when it was read.
#[derive(Debug)]
pub(crate) struct Snapshot {
    content: Vec<u8>,
    identity: ObjectIdentity,
    /// Its place among those that exist.
    _place: Arc<()>,
}

/// Opens `file` as what it is: a file with a size, or the content that it has now.
///
/// `places` is shared by all snapshots, and counts them.
pub(super) fn open(file: File, places: &Arc<()>) -> Result<Arc<dyn Object>, OpenError> {
    if has_its_size(&file).map_err(OpenError::Io)? {
        return Ok(Arc::new(SourceFile::new(file).map_err(OpenError::Io)?));
    }
    let place = Arc::clone(places);
    if Arc::strong_count(&place) > MAX_SNAPSHOTS + 1 {
        return Err(OpenError::TooManySnapshots);
    }
    let content = read_all(&file)?;
    let digest: [u8; 32] = Blake3Digest::of(&content).into();
    let identity = identity_of(&file).map_err(OpenError::Io)?.of_snapshot(to_u64(content.len()), &digest);
    Ok(Arc::new(Snapshot { content, identity, _place: place }))
}

/// Whether a file ends where its size says.
///
/// Only files without blocks on a disk are doubted: pseudo files have none, and to read the last byte of any other may take a
/// disk long.
fn has_its_size(file: &File) -> io::Result<bool> {
    loop {
        let metadata = file.metadata()?;
        let size = metadata.size();
        if metadata.blocks() > 0 {
            return Ok(true);
        }
        let has_byte = |offset| Ok::<_, io::Error>(file.read_at(&mut [0], offset)? > 0);
        if (size == 0 || has_byte(size - 1)?) && !has_byte(size)? {
            return Ok(true);
        }
        // A file that was written to meanwhile is an ordinary one.
        if file.metadata()?.size() == size {
            return Ok(false);
        }
    }
}

/// The complete content, if it is not too large.
fn read_all(file: &File) -> Result<Vec<u8>, OpenError> {
    let mut content = Vec::new();
    let mut piece = vec![0; 1 << 16];
    loop {
        let n = match file.read_at(&mut piece, to_u64(content.len())) {
            Ok(0) => return Ok(content),
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(OpenError::Io(error)),
        };
        content.extend_from_slice(piece.get(..n).unwrap_or_default());
        if content.len() > MAX_SNAPSHOT {
            return Err(OpenError::Unsized);
        }
    }
}

impl Object for Snapshot {
    fn identity(&self) -> ObjectIdentity {
        self.identity
    }

    /// What was read does not change.
    fn current_identity(&self) -> io::Result<ObjectIdentity> {
        Ok(self.identity)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.content.get(offset..));
        let rest = rest.unwrap_or_default();
        let n = rest.len().min(buffer.len());
        if let (Some(into), Some(from)) = (buffer.get_mut(..n), rest.get(..n)) {
            into.copy_from_slice(from);
        }
        Ok(n)
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// The content that opening `path` gives.
    fn content(path: &Path) -> Result<Vec<u8>, String> {
        let object = open(File::open(path).unwrap(), &Arc::default()).map_err(|error| error.to_string())?;
        let mut content = vec![0; usize::try_from(object.size()).unwrap()];
        let n = object.read_at(&mut content, 0).unwrap();
        assert_eq!((n, object.read_at(&mut [0], object.size()).unwrap()), (content.len(), 0), "{path:?}");
        assert!(object.is_unchanged());
        Ok(content)
    }

    #[test]
    fn pseudo_files_have_the_content_that_reading_gives() {
        // Size 0 with content, and a page with less content.
        for path in [
            "/proc/version",
            "/proc/cpuinfo",
            "/proc/self/cmdline",
            "/sys/kernel/mm/transparent_hugepage/enabled",
        ] {
            let path = Path::new(path);
            let Ok(expected) = std::fs::read(path) else {
                eprintln!("skipped: this system has no {path:?}");
                continue;
            };
            assert!(!expected.is_empty() && content(path) == Ok(expected), "{path:?}");
        }
    }

    #[test]
    fn ordinary_files_are_not_copied() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        let places = Arc::default();
        for (what, size) in [("empty", 0), ("sparse", 100 << 20), ("sparse, with an odd size", (1 << 30) + 1)]
        {
            let file = File::create(&path).unwrap();
            file.set_len(size).unwrap();
            let object = open(File::open(&path).unwrap(), &places).unwrap();
            assert_eq!((object.size(), object.as_fd().is_some()), (size, true), "{what}");
        }
        std::fs::write(&path, "abc").unwrap();
        assert!(open(File::open(&path).unwrap(), &places).unwrap().as_fd().is_some());
    }

    #[test]
    fn number_of_snapshots_is_bounded() {
        let places = Arc::default();
        let open = || open(File::open("/proc/version").unwrap(), &places);
        let mut all: Vec<_> = (0..MAX_SNAPSHOTS).map(|_| open().unwrap()).collect();
        assert!(matches!(open(), Err(OpenError::TooManySnapshots)));
        all.pop();
        assert!(open().is_ok());
    }
}
