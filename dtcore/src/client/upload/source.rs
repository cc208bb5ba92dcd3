//! What is uploaded: a file, or what a reader delivers.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::backend::fs::SourceFile;
use crate::backend::{GrowingObject, Object};
use crate::failure::Failure;

/// What the user named as source.
pub(super) enum Input {
    /// A file, or a device or pipe that is read in order.
    Path(PathBuf),
    /// A reader.
    Reader(Box<dyn Read + Send>),
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.fmt(f),
            Self::Reader(_) => f.write_str("reader"),
        }
    }
}

/// What errors call a reader.
const INPUT: &str = "the input";

/// How much is read at once.
const PIECE: usize = 256 << 10;

/// A source that is open, and whether a later upload of it can resume.
pub(super) struct OpenInput {
    pub(super) object: Arc<dyn Object>,
    pub(super) is_resumable: bool,
}

/// Opens a source. Blocks the calling thread, for a pipe until its writer has ended.
pub(super) fn open(input: Input, may_grow: bool, cancel: &CancellationToken) -> Result<OpenInput, Failure> {
    let path = match input {
        Input::Reader(reader) => return spooled(reader, Path::new(INPUT), cancel),
        Input::Path(path) => path,
    };
    let failed = |source| Failure::LocalFile { action: "read", path: path.clone(), source };
    let found = fs::metadata(&path).map_err(failed)?;
    if found.is_dir() {
        return Err(failed(io::ErrorKind::IsADirectory.into()));
    }
    let file = File::open(&path).map_err(failed)?;
    if !found.is_file() {
        return spooled(Box::new(file), &path, cancel);
    }
    let object: Arc<dyn Object> = Arc::new(SourceFile::new(file).map_err(failed)?);
    let object = if may_grow { Arc::new(GrowingObject::new(object)) } else { object };
    Ok(OpenInput { object, is_resumable: true })
}

/// Reads everything into an unnamed file.
fn spooled(
    mut reader: Box<dyn Read + Send>,
    name: &Path,
    cancel: &CancellationToken,
) -> Result<OpenInput, Failure> {
    let folder = std::env::temp_dir();
    let no_room = |source| Failure::local("write to", &folder, 0, source);
    let mut file = tempfile::tempfile_in(&folder).map_err(no_room)?;
    let mut piece = vec![0; PIECE];
    loop {
        if cancel.is_cancelled() {
            return Err(Failure::Cancelled);
        }
        let n = match reader.read(&mut piece) {
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => {
                return Err(Failure::LocalFile { action: "read", path: name.to_owned(), source });
            }
        };
        if n == 0 {
            break;
        }
        io::Write::write_all(&mut file, piece.get(..n).unwrap_or_default()).map_err(no_room)?;
    }
    file.rewind().map_err(no_room)?;
    let object = SourceFile::new(file).map_err(no_room)?;
    Ok(OpenInput { object: Arc::new(object), is_resumable: false })
}
