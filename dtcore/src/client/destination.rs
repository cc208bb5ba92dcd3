//! Where the received file goes: into its place by way of a part file, or in order to a writer.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use tokio::sync::Notify;

use crate::client::options::Options;
use crate::digest::RangeDigest;
use crate::error::TransferError;
use crate::manifest::{BlockSet, BlockSize, Manifest};
use crate::proto::v2;
use crate::sink::{
    BeginError, Clobber, Durability, Engine, FileSink, Outcome, PartFile, PwriteStore, Recovered,
    ReorderBuffer, SourceIdentity, Store, Watch, open, open_for_blocks,
};

/// What the user named as output.
pub(crate) enum Output {
    /// A file, or a device or pipe that is written in order.
    Path(PathBuf),
    /// A writer of the embedder's, or standard output.
    Writer(Box<dyn Write + Send>),
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.fmt(f),
            Self::Writer(_) => f.write_str("writer"),
        }
    }
}

/// Something that takes the file's bytes in order.
pub(crate) enum Sink {
    /// It is open.
    Writer(Box<dyn Write + Send>),
    /// A device or pipe that the follower opens: opening a pipe waits for its reader.
    Path(PathBuf),
}

/// How often a pipe is looked at that nobody reads yet.
const NAME_CHECK_INTERVAL: Duration = Duration::from_millis(50);

impl Sink {
    /// Opens the sink; a pipe that nobody reads is waited for until `is_abandoned` says so.
    pub(crate) fn open(self, is_abandoned: impl Fn() -> bool) -> io::Result<Box<dyn Write + Send>> {
        let path = match self {
            Self::Writer(writer) => return Ok(writer),
            Self::Path(path) => path,
        };
        // Without the flag, opening would wait for a reader where nothing could end it.
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
        loop {
            // A descriptor of a file is opened anew, so only its end is where nothing is overwritten.
            match OpenOptions::new().append(true).custom_flags(flags).open(&path) {
                Ok(file) => {
                    fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
                    return Ok(Box::new(file));
                }
                Err(error) if !is_unread_pipe(&path, &error) || is_abandoned() => return Err(error),
                Err(_) => thread::sleep(NAME_CHECK_INTERVAL),
            }
        }
    }
}

/// Whether `path` could not be opened because it is a pipe that nobody reads.
fn is_unread_pipe(path: &Path, error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::NXIO)
        && fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo())
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sink")
    }
}

/// What a transfer of protocol 2 begins with.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) blocks: FileSink,
    /// Notified when the place of a block is free or filled.
    pub(crate) place_freed: Arc<Notify>,
    /// The blocks that are there, and their digests by index.
    pub(crate) done: BlockSet,
    pub(crate) digests: Vec<Option<RangeDigest>>,
    /// How many bytes they have.
    pub(crate) resumed: u64,
    pub(crate) outcome: Outcome,
}

/// How much memory the bytes for a sink may take that came before their turn: a second of a gigabit, and two of the largest
/// blocks.
const WINDOW: u64 = 32 << 20;

/// The open destination of one transfer.
#[derive(Debug)]
pub(crate) enum Destination {
    /// A part file that takes the output's place at the end.
    File(PartFile),
    /// A sink that gets the bytes in order.
    Ordered {
        /// What the follower writes to, until it takes it.
        sink: Option<Sink>,
        /// How errors name the sink.
        name: PathBuf,
    },
}

impl Destination {
    /// Opens what `output` names; what cannot be written is refused before the server is bothered.
    pub(crate) fn open(output: Output, options: &Options) -> Result<Self, TransferError> {
        let (sink, name) = match output {
            Output::Path(path) if !is_special(&path) => {
                return PartFile::claim(&path, options.clobber, options.resume).map(Self::File);
            }
            Output::Path(path) if options.clobber == Clobber::Refuse => {
                return Err(TransferError::OutputExists { path });
            }
            Output::Path(path) => (Sink::Path(path.clone()), path),
            Output::Writer(writer) => (Sink::Writer(writer), PathBuf::from("standard output")),
        };
        Ok(Self::Ordered { sink: Some(sink), name })
    }

    /// Begins a transfer of protocol 2, or goes on with one.
    ///
    /// Blocks the calling thread: after a change of boot this reads and hashes what is there, as long as `watch` lets it.
    pub(crate) fn begin(
        &mut self,
        options: &Options,
        source: &v2::Answer,
        watch: &mut Watch<'_>,
    ) -> Result<Begun, TransferError> {
        let manifest = source.manifest;
        let (store, journal, recovered) = match self {
            Self::File(part) => {
                let remote = SourceIdentity::remote(&options.server.to_string(), options.name.as_bytes());
                let source_identity =
                    SourceIdentity { manifest, modified: source.modified, version: source.version, remote };
                let (journal, recovered) =
                    part.begin(&source_identity, watch).map_err(|error| match error {
                        BeginError::SourceChanged => TransferError::SourceReplaced {
                            server: options.server.to_string(),
                            name: options.name.to_string_lossy().into_owned(),
                            part: part.path().to_owned(),
                        },
                        BeginError::Stopped => TransferError::Cancelled,
                        BeginError::Local(error) => error,
                    })?;
                let (block, n_streams) = (manifest.block_size().bytes(), options.streams.value());
                let store = open_for_blocks(part.file(), options.engine, manifest.size(), block, n_streams)
                    .map_err(|error| {
                    TransferError::local("reserve room for", part.path(), manifest.size(), error)
                })?;
                (store, journal, recovered)
            }
            Self::Ordered { .. } => {
                let store: Arc<dyn Store> = Arc::new(ReorderBuffer::new(WINDOW));
                (store, None, Recovered::nothing(&manifest, Outcome::Fresh))
            }
        };
        let Recovered { done, digests, bytes, outcome } = recovered;
        let place_freed = Arc::new(Notify::new());
        let waiting = Arc::clone(&place_freed);
        let notify = Box::new(move || waiting.notify_waiters());
        let blocks = FileSink::new(manifest, store, journal, &done, notify)
            .map_err(|error| TransferError::local("resume", self.path(), manifest.size(), error))?;
        Ok(Begun { blocks, place_freed, done, digests, resumed: bytes, outcome })
    }

    /// How far ahead of a sink bytes may be fetched; a file takes them all.
    pub(crate) fn ahead(&self) -> Option<u64> {
        match self {
            Self::File(_) => None,
            // A block that begins within the distance may end beyond it.
            Self::Ordered { .. } => Some(WINDOW - BlockSize::MAX),
        }
    }

    /// Whether something stays when the transfer fails, to be gone on with.
    pub(crate) fn is_resumable(&self) -> bool {
        match self {
            Self::File(part) => part.is_resumable(),
            Self::Ordered { .. } => false,
        }
    }

    /// Fails if the part file's name is gone, or is another file's.
    pub(crate) fn check_name(&self) -> Result<(), TransferError> {
        match self {
            Self::File(part) => part.check_name(),
            Self::Ordered { .. } => Ok(()),
        }
    }

    /// Fails if bytes of the complete file, in which each block has its digest, were taken away again.
    pub(crate) fn check_whole(
        &self,
        manifest: &Manifest,
        digests: &[Option<RangeDigest>],
    ) -> Result<(), TransferError> {
        match self {
            Self::File(part) => part.check_whole(manifest, digests),
            Self::Ordered { .. } => Ok(()),
        }
    }

    /// Whoever goes on with what stays proves all of it first.
    pub(crate) fn require_rehash(&self) {
        if let Self::File(part) = self {
            part.require_rehash();
        }
    }

    /// Gives up what an earlier transfer has left: protocol 1 cannot go on with it.
    pub(crate) fn start_over(&mut self) -> Result<(), TransferError> {
        match self {
            Self::File(part) => part.start_over(),
            Self::Ordered { .. } => Ok(()),
        }
    }

    /// Keeps nothing.
    pub(crate) fn discard(self) -> Result<(), TransferError> {
        match self {
            Self::File(part) => part.discard(),
            Self::Ordered { .. } => Ok(()),
        }
    }

    /// The store for the bytes of a file of `size` bytes.
    pub(crate) fn store(&self, engine: Engine, size: u64) -> Result<Arc<dyn Store>, TransferError> {
        let spooled;
        let (file, path) = match self {
            Self::File(part) => (part.file(), part.path().to_owned()),
            Self::Ordered { .. } => {
                let folder = std::env::temp_dir();
                spooled = spool(&folder)?;
                (&spooled, folder)
            }
        };
        open(file, engine, size).map_err(|error| TransferError::local("reserve room for", path, size, error))
    }

    /// A store for bytes whose number and place in the file are not known yet: on the same file system as the output.
    pub(crate) fn spill(&self) -> Result<Arc<dyn Store>, TransferError> {
        let folder = match self {
            Self::File(part) => part.folder().to_owned(),
            Self::Ordered { .. } => std::env::temp_dir(),
        };
        Ok(Arc::new(PwriteStore::of_unknown_size(spool(&folder)?)))
    }

    /// What all bytes are written to in order, once; for a file, the part file.
    pub(crate) fn file_or_writer(&mut self) -> Result<Option<Sink>, TransferError> {
        let Self::File(part) = self else { return Ok(self.take_writer()) };
        let file = part.file().try_clone().and_then(|mut file| file.rewind().map(|()| file));
        let file = file.map_err(|error| TransferError::local("write", part.path(), 0, error))?;
        Ok(Some(Sink::Writer(Box::new(file))))
    }

    /// The sink for bytes in order, once.
    pub(crate) fn take_writer(&mut self) -> Option<Sink> {
        match self {
            Self::File(_) => None,
            Self::Ordered { sink, .. } => sink.take(),
        }
    }

    /// The file that errors name.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::File(part) => part.path(),
            Self::Ordered { name, .. } => name,
        }
    }

    /// Puts the complete and verified file of `len` bytes in its place.
    pub(crate) fn publish(self, len: u64, durability: Durability) -> Result<Option<PathBuf>, TransferError> {
        match self {
            Self::File(part) => part.publish(len, durability).map(Some),
            Self::Ordered { .. } => Ok(None),
        }
    }
}

/// Whether `path` is a device, a pipe, a socket or a descriptor, which is written to rather than replaced.
fn is_special(path: &Path) -> bool {
    is_descriptor(path) || fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir())
}

/// Whether `path` stands for an open descriptor, such as `/dev/stdout`.
fn is_descriptor(path: &Path) -> bool {
    let link = fs::read_link(path).unwrap_or_default();
    [path, &link].iter().any(|path| path.starts_with("/dev/fd") || path.starts_with("/proc/self/fd"))
}

/// A file without a name: whatever happens, nothing of it is left.
fn spool(folder: &Path) -> Result<File, TransferError> {
    tempfile::tempfile_in(folder).map_err(|source| TransferError::local("make room in", folder, 0, source))
}
