//! The journal beside a part file: which blocks of it are right, so that a transfer can be gone on with after anything.
//!
//! `docs/journal.md` says what its bytes are, in which order they are written, and what a crash leaves. Who holds the lock
//! on the part file owns the journal.

mod format;
mod recovery;

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{FallocateFlags, fallocate};

use super::sidecar;
use crate::digest::RangeDigest;
use crate::error::is_disk_full;
use crate::manifest::BlockId;
pub(crate) use format::Contents;
use format::Record;
pub(super) use format::{HEADER_LEN, Header, RECORD_LEN};
pub(crate) use format::{PartIdentity, SourceIdentity};
pub(crate) use recovery::{Checked, Outcome, Recovered, Watch};
pub(super) use recovery::{RecoverError, ResumeDecision, Trust, check_journal, is_whole, recover};

/// An open journal; its clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct Journal(Arc<Open>);

#[derive(Debug)]
struct Open {
    file: File,
    path: PathBuf,
    nonce: [u8; 16],
    /// How long the journal is. Whoever appends holds the lock.
    len: Mutex<u64>,
}

impl Journal {
    /// A journal without records at `path`, where there must be none.
    pub(super) fn create(
        path: &Path,
        source_identity: &SourceIdentity,
        part: PartIdentity,
    ) -> io::Result<Self> {
        let (file, nonce) = write(path, source_identity, part, &[])?;
        Ok(Self::new(file, path, nonce, len_of(0)))
    }

    /// Puts a journal with these records in the place of the one at `path`, in one step.
    pub(super) fn replace(
        path: &Path,
        source_identity: &SourceIdentity,
        part: PartIdentity,
        records: &[Record],
    ) -> io::Result<Self> {
        let new = path_of_new(path);
        remove(&new)?;
        let (file, nonce) = write(&new, source_identity, part, records)?;
        // Else a power cut could leave the new name and no bytes.
        file.sync_data()?;
        fs::rename(&new, path)?;
        Ok(Self::new(file, path, nonce, len_of(records.len())))
    }

    /// Goes on with the journal `found` at `path`, and cuts off what comes behind its last good record.
    pub(super) fn resume(found: Found, path: &Path) -> io::Result<Self> {
        let Found { file, contents } = found;
        let len = contents.len();
        if file.metadata()?.len() > len {
            file.set_len(len)?;
        }
        Ok(Self::new(file, path, contents.header.nonce, len))
    }

    fn new(file: File, path: &Path, nonce: [u8; 16], len: u64) -> Self {
        Self(Arc::new(Open { file, path: path.to_owned(), nonce, len: Mutex::new(len) }))
    }

    /// Records that `block` is in the part file and has this digest.
    pub(crate) fn record(&self, block: BlockId, digest: RangeDigest) -> io::Result<()> {
        let bytes = Record { block, digest }.encode(&self.0.nonce);
        let mut len = self.len();
        // One write at the journal's end, so that a death leaves all of it or nothing. What a failed one left there is
        // overwritten by the next.
        loop {
            match self.0.file.write_at(&bytes, *len) {
                Ok(RECORD_LEN) => break,
                Ok(_) => return Err(io::ErrorKind::StorageFull.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        *len += len_of(1) - len_of(0);
        Ok(())
    }

    /// Lets whoever goes on with it prove every block first, as after another boot.
    pub(super) fn require_rehash(&self) -> io::Result<()> {
        let Some(header) = read_header(&self.0.file)? else { return Ok(()) };
        self.0.file.write_all_at(&Header { boot: [0; 16], ..header }.encode(), 0)
    }

    /// Whether there is anything in it to go on with.
    pub(super) fn has_records(&self) -> bool {
        *self.len() > len_of(0)
    }

    /// Removes the journal's file, unless its name is another's by now.
    pub(super) fn remove(&self) -> io::Result<()> {
        if sidecar::is_named(&self.0.file, &self.0.path) { fs::remove_file(&self.0.path) } else { Ok(()) }
    }

    fn len(&self) -> MutexGuard<'_, u64> {
        // It is changed in one step.
        self.0.len.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long a journal with so many records is.
fn len_of(n_records: usize) -> u64 {
    (HEADER_LEN + n_records * RECORD_LEN).try_into().unwrap_or(u64::MAX)
}

/// Writes a journal to a new file, and returns that with the journal's nonce.
fn write(
    path: &Path,
    source_identity: &SourceIdentity,
    part: PartIdentity,
    records: &[Record],
) -> io::Result<(File, [u8; 16])> {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(|error| io::Error::other(error.to_string()))?;
    let header =
        Header { source_identity: source_identity.clone(), boot: boot_id().unwrap_or_default(), part, nonce };
    let file = sidecar::create(path, 0o600)?;
    sidecar::mark(&file);
    let written = reserve(&file, source_identity).and_then(|()| {
        let mut writer = BufWriter::with_capacity(BUFFER, &file);
        writer.write_all(&header.encode())?;
        for record in records {
            writer.write_all(&record.encode(&nonce))?;
        }
        writer.flush()
    });
    if let Err(error) = written {
        fs::remove_file(path)?;
        return Err(error);
    }
    Ok((file, nonce))
}

/// How much of a journal is written at once where all of it is.
const BUFFER: usize = 1 << 20;

/// Takes the room that the journal of a whole transfer needs, so that a full disk shows at the beginning.
fn reserve(file: &File, source_identity: &SourceIdentity) -> io::Result<()> {
    let n_blocks = usize::try_from(source_identity.manifest.n_blocks()).unwrap_or(usize::MAX);
    match fallocate(file, FallocateFlags::KEEP_SIZE, 0, len_of(n_blocks)).map_err(io::Error::from) {
        Err(error) if is_disk_full(&error) => Err(error),
        // Not every file system can.
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A journal that an earlier transfer left.
#[derive(Debug)]
pub(super) struct Found {
    file: File,
    contents: Contents,
}

impl Found {
    /// Reads the journal at `path`; `None` if there is none, or nothing in it.
    ///
    /// # Errors
    /// It is not ours, or cannot be read.
    pub(super) fn read(path: &Path) -> io::Result<Option<Self>> {
        let Some(file) = open(path)? else { return Ok(None) };
        let Some(header) = read_header(&file)? else { return Ok(None) };
        // Each block has one record, unless some were received twice: what is far more than that is not a journal's.
        let most = 2 * u64::from(header.source_identity.manifest.n_blocks()) + 1;
        let most = len_of(usize::try_from(most).unwrap_or(usize::MAX));
        let mut bytes = header.encode().to_vec();
        (&file).take(most).read_to_end(&mut bytes)?;
        Ok(Contents::decode(&bytes).map(|contents| Self { file, contents }))
    }

    /// What it says.
    pub(super) fn contents(&self) -> &Contents {
        &self.contents
    }
}

/// Whether there is a journal at `path` that names this part file: the part file is ours then.
pub(super) fn is_about(path: &Path, part: PartIdentity) -> bool {
    let header = open(path).and_then(|file| file.map_or(Ok(None), |file| read_header(&file)));
    header.is_ok_and(|header| header.is_some_and(|header| header.part.inode == part.inode))
}

/// Whether there is a journal at `path`.
///
/// # Errors
/// There is something else.
pub(super) fn is_there(path: &Path) -> io::Result<bool> {
    open(path).map(|file| file.is_some())
}

/// Removes the journal at `path`, and what was to take its place, if they are there.
///
/// # Errors
/// One of them is not ours, or cannot be removed.
pub(super) fn remove_all(path: &Path) -> io::Result<()> {
    remove(&path_of_new(path))?;
    remove(path)
}

fn remove(path: &Path) -> io::Result<()> {
    match open(path)? {
        Some(file) if sidecar::is_named(&file, path) => fs::remove_file(path),
        Some(_) | None => Ok(()),
    }
}

/// Opens the journal at `path`, if there is one.
fn open(path: &Path) -> io::Result<Option<File>> {
    let not_ours = || io::Error::other("it does not look like a journal of yours; move it away");
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
        Ok(found) if !sidecar::is_plain(&found) || !sidecar::is_own(&found) => return Err(not_ours()),
        Ok(_) => {}
    }
    let file = sidecar::open_found_to_write(path)?;
    let found = file.metadata()?;
    let is_one = sidecar::is_marked(&file) || found.len() == 0 || read_header(&file)?.is_some();
    if sidecar::is_plain(&found) && sidecar::is_own(&found) && is_one {
        Ok(Some(file))
    } else {
        Err(not_ours())
    }
}

/// Reads the header, and leaves the file's position behind it.
fn read_header(file: &File) -> io::Result<Option<Header>> {
    let mut bytes = Vec::with_capacity(HEADER_LEN);
    let mut file = file;
    file.rewind()?;
    file.take(len_of(0)).read_to_end(&mut bytes)?;
    Ok(Header::decode(&bytes))
}

/// Where a journal is written that will take the place of the one at `path`.
fn path_of_new(path: &Path) -> PathBuf {
    // As long a name as the journal's, which may be as long as names can be.
    path.with_extension("dtjournew")
}

/// The kernel's name for this boot; `None` if it does not tell.
pub(super) fn boot_id() -> Option<[u8; 16]> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let digits: String = text.trim().chars().filter(|c| *c != '-').collect();
    if digits.len() != 32 || !digits.is_ascii() {
        return None;
    }
    let mut bytes = u128::from_str_radix(&digits, 16).ok()?.to_le_bytes();
    // In the order of the text.
    bytes.reverse();
    Some(bytes)
}

/// Which file `file` is.
pub(super) fn identity(file: &File) -> io::Result<PartIdentity> {
    file.metadata().map(|found| PartIdentity { device: found.dev(), inode: found.ino() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{BlockSize, Manifest};

    fn source_identity() -> SourceIdentity {
        let manifest = Manifest::new(3 << 16, BlockSize::new(1 << 16).unwrap()).unwrap();
        SourceIdentity { manifest, modified: 0, version: [0; 16].into(), remote: [0; 32] }
    }

    fn digest(byte: u8) -> RangeDigest {
        RangeDigest::from([byte; 32])
    }

    const PART: PartIdentity = PartIdentity { device: 1, inode: 2 };

    #[test]
    fn the_last_record_of_a_block_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.dtjournal");
        let journal = Journal::create(&path, &source_identity(), PART).unwrap();
        let block = source_identity().manifest.block(1).unwrap();
        for byte in [7, 8] {
            journal.record(block, digest(byte)).unwrap();
        }
        let part = tempfile::tempfile().unwrap();
        part.write_all_at(&vec![1; 3 << 16], 0).unwrap();
        let found = Found::read(&path).unwrap().unwrap();
        let mut unwatched = |_: Checked| panic!("nothing is read back");
        let (recovered, is_less) = recover(found.contents(), &part, Trust::Complete, &mut unwatched).unwrap();
        assert_eq!(recovered.digests, [None, Some(digest(8)), None]);
        assert_eq!((recovered.done.len(), recovered.bytes, is_less), (1, 1 << 16, false));
    }

    #[test]
    fn a_record_that_could_not_be_written_is_none() {
        let full = sidecar::open_found_to_write(Path::new("/dev/full")).unwrap();
        let journal = Journal::new(full, Path::new("/dev/full"), [0; 16], len_of(0));
        assert!(is_disk_full(
            &journal.record(source_identity().manifest.block(0).unwrap(), digest(1)).unwrap_err()
        ));
        assert!(!journal.has_records());
    }

    #[test]
    fn half_a_record_is_written_over_by_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.dtjournal");
        let journal = Journal::create(&path, &source_identity(), PART).unwrap();
        journal.0.file.write_all_at(&[9; 20], len_of(0)).unwrap();
        journal.record(source_identity().manifest.block(2).unwrap(), digest(1)).unwrap();
        assert_eq!(Found::read(&path).unwrap().unwrap().contents().records.len(), 1);
    }

    #[test]
    fn of_a_very_long_journal_no_more_is_read_than_it_can_have() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.dtjournal");
        let journal = Journal::create(&path, &source_identity(), PART).unwrap();
        for _ in 0..100 {
            journal.record(source_identity().manifest.block(2).unwrap(), digest(1)).unwrap();
        }
        let n_read = Found::read(&path).unwrap().unwrap().contents().records.len();
        assert!((3..20).contains(&n_read), "{n_read}");
    }

    #[test]
    fn a_journal_is_removed_under_its_own_name_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.dtjournal");
        let first = Journal::create(&path, &source_identity(), PART).unwrap();
        fs::remove_file(&path).unwrap();
        let second = Journal::create(&path, &source_identity(), PART).unwrap();
        first.remove().unwrap();
        assert!(path.exists());
        second.remove().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn the_kernel_names_its_boot() {
        let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().replace('-', "");
        let bytes = boot_id().unwrap();
        assert_eq!(text.trim(), bytes.map(|byte| format!("{byte:02x}")).concat());
    }
}
