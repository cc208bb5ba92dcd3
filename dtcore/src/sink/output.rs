//! Where a received file goes: into its place by way of a part file, or in order to a writer.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;

use super::file::FileSink;
use super::journal::{Outcome, Recovered, SourceIdentity, Watch};
use super::memory::MemoryWriter;
use super::ordered::ReorderBuffer;
use super::part_file::{
    Attributes, BeginError, Begun, Clobber, Durability, Exclusion, Links, PartFile, Proof, Resume, folder_of,
    publish,
};
use super::store::{Engine, PwriteStore, Store, open, open_for_blocks};
use crate::digest::RangeDigest;
use crate::failure::Failure;
use crate::manifest::{BlockSize, ByteRange, Manifest};
use crate::sync::Lock;
use crate::sys::filesystem;

/// What the user named as output.
pub(crate) enum Output {
    /// A file, or a device or pipe that is written in order.
    Path(PathBuf),
    /// A regular file, and never what a link leads to.
    Confined(PathBuf),
    /// A writer, and how errors name it.
    Writer(Box<dyn Write + Send>, &'static str),
    /// Memory, up to so many bytes.
    Memory(Arc<ReorderBuffer>, u64),
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) | Self::Confined(path) => path.fmt(f),
            Self::Writer(_, name) => f.write_str(name),
            Self::Memory(..) => f.write_str(MEMORY),
        }
    }
}

/// What the bytes of the file are written to in order.
pub(crate) enum OrderedWriter {
    /// It is open. The lock makes it `Sync`, and is never taken.
    Open(Lock<Box<dyn Write + Send>>),
    /// A device or pipe that the in-order reader opens: opening a pipe waits for its reader.
    Path(PathBuf),
}

/// How often a pipe without a reader is checked for one.
const PIPE_CHECK_INTERVAL: Duration = Duration::from_millis(50);

impl OrderedWriter {
    /// A writer that is open.
    pub(crate) fn open(writer: impl Write + Send + 'static) -> Self {
        Self::Open(Lock::new(Box::new(writer)))
    }

    /// Opens it. A pipe that has no reader is awaited until `is_abandoned` returns `true`.
    pub(crate) fn opened(self, is_abandoned: impl Fn() -> bool) -> io::Result<Box<dyn Write + Send>> {
        let path = match self {
            Self::Open(writer) => return Ok(writer.into_inner()),
            Self::Path(path) => path,
        };
        // Without the flag, opening would wait for a reader, and nothing could interrupt it.
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
        loop {
            // The file of a descriptor is opened again, so only at its end nothing is overwritten.
            match OpenOptions::new().append(true).custom_flags(flags).open(&path) {
                Ok(file) => {
                    fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
                    return Ok(Box::new(file));
                }
                Err(error) if !is_unread_pipe(&path, &error) || is_abandoned() => return Err(error),
                Err(_) => thread::sleep(PIPE_CHECK_INTERVAL),
            }
        }
    }
}

/// Whether `path` could not be opened because it is a pipe without a reader.
fn is_unread_pipe(path: &Path, error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::NXIO)
        && fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo())
}

impl fmt::Debug for OrderedWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("writer")
    }
}

/// How much memory may hold bytes that arrived before their turn: a second of a gigabit, and two of the largest blocks.
const WINDOW: u64 = 32 << 20;

/// Where one transfer puts what it receives.
#[derive(Debug)]
pub(crate) enum Sink {
    /// A part file that takes the output's place at the end.
    File(PartFile),
    /// A writer that gets the bytes in order.
    Ordered {
        /// What the in-order reader writes to, until it takes it.
        writer: Option<OrderedWriter>,
        /// How errors name the writer.
        name: PathBuf,
    },
    /// Memory, up to so many bytes.
    Memory(Arc<ReorderBuffer>, u64),
}

/// How a transfer of blocks starts.
#[derive(Debug)]
pub(crate) enum Prepared {
    /// Where the blocks go, and which are there.
    Ready(FileSink, Recovered),
    /// Not before the remote file is verified to have these blocks.
    Unverified(Recovered),
}

/// How errors name memory.
const MEMORY: &str = "memory";

impl Sink {
    /// Opens what `output` names. What cannot be written is an error before the server is asked.
    pub(crate) fn open(output: Output, clobber: Clobber, resume: Resume) -> Result<Self, Failure> {
        let (writer, name) = match output {
            Output::Path(path) if !is_special(&path) => {
                return PartFile::lock(&path, Links::Followed, clobber, resume).map(Self::File);
            }
            Output::Confined(path) => {
                return PartFile::lock(&path, Links::Refused, clobber, resume).map(Self::File);
            }
            Output::Path(path) if clobber == Clobber::Refuse => {
                return Err(Failure::OutputExists { path });
            }
            Output::Path(path) if fs::metadata(&path).is_ok_and(|found| found.file_type().is_socket()) => {
                let source = io::Error::other("it is a socket");
                return Err(Failure::LocalFile { action: "write", path, source });
            }
            Output::Path(path) => (OrderedWriter::Path(path.clone()), path),
            Output::Writer(writer, name) => (OrderedWriter::Open(Lock::new(writer)), PathBuf::from(name)),
            Output::Memory(store, limit) => return Ok(Self::Memory(store, limit)),
        };
        Ok(Self::Ordered { writer: Some(writer), name })
    }

    fn part(&self) -> Option<&PartFile> {
        match self {
            Self::File(part) => Some(part),
            Self::Ordered { .. } | Self::Memory(..) => None,
        }
    }

    /// The first bytes that an earlier transfer has not left; the range of any file if that is not known without work.
    pub(crate) fn first_gap(&self) -> ByteRange {
        self.part().map_or(ByteRange::new(0, u64::MAX), PartFile::first_gap)
    }

    /// Starts a transfer of blocks, or resumes one: where they go, and which are there. `freed` is called whenever a place in the sink
    /// becomes free.
    ///
    /// Called with a pending proof first, and with its result if something must be verified, which changes nothing.
    /// Blocks the calling thread: after a reboot this reads and hashes what is there, as long as `watch` lets it.
    pub(crate) fn prepare(
        &mut self,
        source: &SourceIdentity,
        proof: Proof,
        engine: Engine,
        n_streams: u8,
        freed: Box<dyn Fn() + Send + Sync>,
        watch: &mut Watch<'_>,
    ) -> Result<Prepared, BeginError> {
        let manifest = source.manifest;
        let (store, journal, recovered) = match self {
            Self::File(part) => {
                let no_room = |path: &Path| {
                    let path = path.to_owned();
                    move |error| Failure::local("reserve room for", path, manifest.size(), error)
                };
                // Before anything whose size a peer determines is allocated.
                filesystem::ensure_space(&part.file, manifest.size()).map_err(no_room(&part.path))?;
                let (journal, recovered) = match part.begin(source, proof, watch)? {
                    Begun::Ready(journal, recovered) => (journal, recovered),
                    Begun::Unverified(claimed) => return Ok(Prepared::Unverified(claimed)),
                };
                let block = manifest.block_size().bytes();
                let store = open_for_blocks(&part.file, engine, manifest.size(), block, n_streams)
                    .map_err(no_room(&part.path))?;
                (store, journal, recovered)
            }
            Self::Ordered { .. } => {
                let store: Arc<dyn Store> = Arc::new(ReorderBuffer::new(WINDOW));
                (store, None, Recovered::empty(&manifest, Outcome::Fresh))
            }
            Self::Memory(_, limit) if manifest.size() > *limit => {
                return Err(Failure::OverLimit { size: manifest.size(), limit: *limit }.into());
            }
            Self::Memory(store, _) => {
                let store: Arc<dyn Store> = Arc::<ReorderBuffer>::clone(store);
                (store, None, Recovered::empty(&manifest, Outcome::Fresh))
            }
        };
        let blocks = FileSink::new(manifest, store, journal, &recovered.done, freed)
            .map_err(|error| Failure::local("resume", self.path(), manifest.size(), error))?;
        Ok(Prepared::Ready(blocks, recovered))
    }

    /// How far ahead of a writer bytes may be requested; a file takes them all.
    pub(crate) fn ahead(&self) -> Option<u64> {
        match self {
            Self::File(_) | Self::Memory(..) => None,
            // A block that begins within the distance may end beyond it.
            Self::Ordered { .. } => Some(WINDOW - BlockSize::MAX),
        }
    }

    /// Fails if there is no room for a file of `size` bytes.
    pub(crate) fn ensure_space(&self, size: u64) -> Result<(), Failure> {
        let Some(part) = self.part() else { return Ok(()) };
        filesystem::ensure_space(&part.file, size)
            .map_err(|error| Failure::local("reserve room for", &part.path, size, error))
    }

    /// Whether something stays that can be resumed when the transfer fails.
    pub(crate) fn is_resumable(&self) -> bool {
        self.part().is_some_and(PartFile::is_resumable)
    }

    /// Whether an existing output is written in place at the end, rather than replaced.
    pub(crate) fn is_in_place(&self) -> bool {
        self.part().is_some_and(|part| part.in_place.is_some())
    }

    /// Whether nothing but the part file's own content keeps other transfers away from it.
    pub(crate) fn is_unlocked(&self) -> bool {
        self.part().is_some_and(|part| part.exclusion == Exclusion::Absent)
    }

    /// Fails if the part file's name is gone, or belongs to another file.
    pub(crate) fn check_name(&self) -> Result<(), Failure> {
        self.part().map_or(Ok(()), PartFile::check_name)
    }

    /// Fails if another process has cut the complete file, in which each block has its digest.
    pub(crate) fn check_whole(
        &self,
        manifest: &Manifest,
        digests: &[Option<RangeDigest>],
    ) -> Result<(), Failure> {
        self.part().map_or(Ok(()), |part| part.check_intact(manifest, digests))
    }

    /// Has a transfer that resumes what stays verify all of it first.
    pub(crate) fn require_rehash(&self) {
        if let Some(part) = self.part() {
            part.require_rehash();
        }
    }

    /// Starts without what an earlier transfer has left: protocol 1 cannot resume.
    ///
    /// # Errors
    /// It has left blocks. They are kept.
    pub(crate) fn restart(&mut self) -> Result<(), Failure> {
        match self {
            Self::File(part) => part.clear_unless_saved(),
            Self::Ordered { .. } | Self::Memory(..) => Ok(()),
        }
    }

    /// Keeps nothing.
    pub(crate) fn discard(self) -> Result<(), Failure> {
        match self {
            Self::File(part) => part.discard(),
            Self::Ordered { .. } | Self::Memory(..) => Ok(()),
        }
    }

    /// The store for the `size` bytes of the file.
    pub(crate) fn store(&self, engine: Engine, size: u64) -> Result<Arc<dyn Store>, Failure> {
        let spooled;
        let (file, path) = match self {
            Self::File(part) => (&part.file, part.path.clone()),
            Self::Ordered { .. } => {
                let folder = std::env::temp_dir();
                spooled = spool(&folder)?;
                (&spooled, folder)
            }
            Self::Memory(_, limit) if size > *limit => {
                return Err(Failure::OverLimit { size, limit: *limit });
            }
            Self::Memory(store, _) => return Ok(Arc::<ReorderBuffer>::clone(store)),
        };
        open(file, engine, size).map_err(|error| Failure::local("reserve room for", path, size, error))
    }

    /// A store for bytes whose place in the file is not known yet: on the same file system as the output.
    pub(crate) fn spill(&self) -> Result<Arc<dyn Store>, Failure> {
        let folder = self.part().map_or_else(std::env::temp_dir, |part| folder_of(&part.path).to_owned());
        Ok(Arc::new(PwriteStore::of_unknown_size(spool(&folder)?)))
    }

    /// What all bytes are written to in order, once; for a file, the part file.
    pub(crate) fn file_or_writer(&mut self) -> Result<Option<OrderedWriter>, Failure> {
        let part = match self {
            Self::File(part) => part,
            Self::Memory(store, _) => return Ok(Some(OrderedWriter::open(MemoryWriter::new(store)))),
            Self::Ordered { .. } => return Ok(self.take_writer()),
        };
        let file = part.file.try_clone().and_then(|mut file| file.rewind().map(|()| file));
        let file = file.map_err(|error| Failure::local("write", &part.path, 0, error))?;
        Ok(Some(OrderedWriter::open(file)))
    }

    /// The writer for bytes in order, once.
    pub(crate) fn take_writer(&mut self) -> Option<OrderedWriter> {
        match self {
            Self::Ordered { writer, .. } => writer.take(),
            Self::File(_) | Self::Memory(..) => None,
        }
    }

    /// How errors name it.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::File(part) => &part.path,
            Self::Ordered { name, .. } => name,
            Self::Memory(..) => Path::new(MEMORY),
        }
    }

    /// Puts the complete and verified file of `len` bytes in its place.
    pub(crate) fn publish(
        self,
        len: u64,
        durability: Durability,
        attributes: Attributes,
    ) -> Result<Option<PathBuf>, Failure> {
        match self {
            Self::File(part) => publish(part, len, durability, attributes).map(Some),
            Self::Ordered { .. } | Self::Memory(..) => Ok(None),
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
fn spool(folder: &Path) -> Result<File, Failure> {
    tempfile::tempfile_in(folder).map_err(|source| Failure::local("make room in", folder, 0, source))
}
