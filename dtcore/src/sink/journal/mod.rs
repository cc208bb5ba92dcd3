//! The journal of a part file: the blocks that are verified and in place, so that any interrupted transfer can resume.
//!
//! `docs/journal.md` specifies its format, the order of writes, and the state after a crash. The holder of the part file's
//! lock owns the journal.

mod format;
mod recovery;

use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Read, Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate};

use super::sidecar;
use crate::digest::{RangeDigest, from_hex};
use crate::failure::is_disk_full;
use crate::manifest::BlockId;
use crate::num::to_u64;
use crate::sync::Lock;
pub(crate) use format::JournalContents;
use format::Record;
pub(super) use format::{HEADER_LEN, JournalHeader, RECORD_LEN};
pub(crate) use format::{PartIdentity, SourceIdentity};
use recovery::has_recorded_block;
pub(crate) use recovery::{Checked, Outcome, Recovered, Watch};
pub(super) use recovery::{
    ResumeDecision, SourceChange, Trust, check_journal, has_all_blocks, is_intact, recorded_ranges, recover,
};

/// An open journal; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Journal(Arc<JournalFile>);

#[derive(Debug)]
struct JournalFile {
    file: File,
    path: PathBuf,
    nonce: [u8; 16],
    /// The journal's length; locked while a record is appended.
    len: Lock<u64>,
}

impl Journal {
    /// Creates a journal without records at `path`, which must not exist.
    pub(super) fn create(
        path: &Path,
        source_identity: &SourceIdentity,
        part: PartIdentity,
    ) -> io::Result<Self> {
        let (file, nonce) = write(path, source_identity, part, &[])?;
        Ok(Self::new(file, path, nonce, len_of(0)))
    }

    /// Replaces the journal at `path` by one with these records, atomically.
    pub(super) fn replace(
        path: &Path,
        source_identity: &SourceIdentity,
        part: PartIdentity,
        records: &[Record],
    ) -> io::Result<Self> {
        let temporary = temporary_path(path);
        remove(&temporary)?;
        let (file, nonce) = write(&temporary, source_identity, part, records)?;
        // Otherwise a power cut could leave the new name without the content.
        file.sync_data()?;
        fs::rename(&temporary, path)?;
        Ok(Self::new(file, path, nonce, len_of(to_u64(records.len()))))
    }

    /// Continues the stale journal at `path`, and truncates it after its last valid record.
    pub(super) fn resume(stale: StaleJournal, path: &Path) -> io::Result<Self> {
        let StaleJournal { file, contents } = stale;
        let len = contents.len();
        if file.metadata()?.len() > len {
            file.set_len(len)?;
        }
        Ok(Self::new(file, path, contents.header.nonce, len))
    }

    fn new(file: File, path: &Path, nonce: [u8; 16], len: u64) -> Self {
        Self(Arc::new(JournalFile { file, path: path.to_owned(), nonce, len: Lock::new(len) }))
    }

    /// Appends the record that `block` is in the part file and has this digest.
    pub(crate) fn record(&self, block: BlockId, digest: RangeDigest) -> io::Result<()> {
        let bytes = Record { block, digest }.encode(&self.0.nonce);
        let mut len = self.0.len.lock();
        // One write at the journal's end, so that a killed process leaves all of it or nothing. The next record overwrites
        // what a failed write left.
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

    /// Makes the next transfer rehash all blocks first, as after a reboot.
    pub(super) fn require_rehash(&self) -> io::Result<()> {
        let Some(header) = read_header(&self.0.file)? else { return Ok(()) };
        self.0.file.write_all_at(&JournalHeader { boot: [0; 16], ..header }.encode(), 0)
    }

    /// Whether it is still the journal of its part file. A transfer that has taken over the part file has replaced it.
    pub(super) fn is_current(&self) -> bool {
        // Read rather than compared by inode, which a network file system may remember for a while.
        header_at(&self.0.path).is_some_and(|header| header.nonce == self.0.nonce)
    }

    /// Whether there is a record to resume from.
    pub(super) fn has_records(&self) -> bool {
        *self.0.len.lock() > len_of(0)
    }

    /// Removes the journal's file, unless another file has its name.
    pub(super) fn remove(&self) -> io::Result<()> {
        if sidecar::is_named(&self.0.file, &self.0.path) { fs::remove_file(&self.0.path) } else { Ok(()) }
    }
}

/// The length of a journal with this many records.
fn len_of(n_records: u64) -> u64 {
    to_u64(HEADER_LEN) + n_records * to_u64(RECORD_LEN)
}

/// Writes a journal to a new file, and returns the file and the journal's nonce.
fn write(
    path: &Path,
    source_identity: &SourceIdentity,
    part: PartIdentity,
    records: &[Record],
) -> io::Result<(File, [u8; 16])> {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(|error| io::Error::other(error.to_string()))?;
    let header = JournalHeader {
        source_identity: source_identity.clone(),
        boot: boot_id().unwrap_or_default(),
        part,
        nonce,
    };
    let file = sidecar::create(path, 0o600)?;
    sidecar::mark(&file);
    let written = reserve(&file, source_identity).and_then(|()| {
        let mut writer = BufWriter::with_capacity(WRITE_BUFFER, &file);
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

/// How much is written at once when a journal is replaced.
const WRITE_BUFFER: usize = 1 << 20;

/// Reserves the space for the records of all blocks, so that a full disk is noticed at the start.
fn reserve(file: &File, source_identity: &SourceIdentity) -> io::Result<()> {
    let len = len_of(source_identity.manifest.n_blocks().into());
    match fallocate(file, FallocateFlags::KEEP_SIZE, 0, len).map_err(io::Error::from) {
        Err(error) if is_disk_full(&error) => Err(error),
        // Not every file system can reserve space.
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A journal from an earlier transfer.
#[derive(Debug)]
pub(super) struct StaleJournal {
    file: File,
    contents: JournalContents,
}

impl StaleJournal {
    /// Reads the journal at `path`; `None` if it does not exist or has no valid header.
    ///
    /// # Errors
    /// The file is not a journal of this user, or cannot be read.
    pub(super) fn read(path: &Path) -> io::Result<Option<Self>> {
        let Some(file) = open(path)? else { return Ok(None) };
        let Some(header) = read_header(&file)? else { return Ok(None) };
        // Each block has one record, unless some were received twice; a longer file is not read to its end.
        let max_records = 2 * u64::from(header.source_identity.manifest.n_blocks()) + 1;
        let max_len = len_of(max_records);
        let mut bytes = header.encode().to_vec();
        (&file).take(max_len).read_to_end(&mut bytes)?;
        Ok(JournalContents::decode(&bytes).map(|contents| Self { file, contents }))
    }

    /// The valid part of the journal.
    pub(super) fn contents(&self) -> &JournalContents {
        &self.contents
    }
}

/// Whether the journal at `path` describes `file`, which proves that it is a part file.
///
/// Some file systems give a file another inode number each time they are mounted. Then a block that the journal records proves it,
/// or, where files cannot be marked either, its length: before the first block is recorded there is nothing else.
pub(super) fn describes(path: &Path, file: &File, found: &Metadata) -> bool {
    let Some(stale) = StaleJournal::read(path).ok().flatten() else { return false };
    let header = &stale.contents.header;
    header.part.inode == found.ino()
        || has_recorded_block(stale.contents(), file)
        || header.source_identity.manifest.size() == found.len() && sidecar::cannot_be_marked(file)
}

/// The header of the journal at `path`, if there is one.
fn header_at(path: &Path) -> Option<JournalHeader> {
    open(path).ok()?.and_then(|file| read_header(&file).ok().flatten())
}

/// Whether there is a journal at `path`.
///
/// # Errors
/// The file at `path` is not a journal of this user.
pub(super) fn exists(path: &Path) -> io::Result<bool> {
    open(path).map(|file| file.is_some())
}

/// Removes the journal at `path` and its unfinished replacement, if they exist.
///
/// # Errors
/// One of them is not a journal of this user, or cannot be removed.
pub(super) fn remove_all(path: &Path) -> io::Result<()> {
    remove(&temporary_path(path))?;
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
    let foreign = || io::Error::other("not a journal of this user; move it away");
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
        Ok(found) if !sidecar::is_plain(&found) || !sidecar::is_own(&found) => return Err(foreign()),
        Ok(_) => {}
    }
    let file = sidecar::open_existing_for_writing(path)?;
    let found = file.metadata()?;
    let is_journal = sidecar::is_marked(&file) || found.len() == 0 || read_header(&file)?.is_some();
    if sidecar::is_plain(&found) && sidecar::is_own(&found) && is_journal {
        Ok(Some(file))
    } else {
        Err(foreign())
    }
}

/// Reads the header, and leaves the file's position after it.
fn read_header(file: &File) -> io::Result<Option<JournalHeader>> {
    let mut bytes = Vec::with_capacity(HEADER_LEN);
    let mut file = file;
    file.rewind()?;
    file.take(len_of(0)).read_to_end(&mut bytes)?;
    Ok(JournalHeader::decode(&bytes))
}

/// Where the replacement of the journal at `path` is written.
fn temporary_path(path: &Path) -> PathBuf {
    path.with_extension(sidecar::JOURNAL_REPLACEMENT.trim_start_matches('.'))
}

/// The kernel's id of this boot; `None` if it cannot be read.
pub(super) fn boot_id() -> Option<[u8; 16]> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let digits: String = text.trim().chars().filter(|c| *c != '-').collect();
    from_hex(&digits)
}

/// The identity of a part file.
pub(super) fn part_identity(file: &File) -> io::Result<PartIdentity> {
    file.metadata().map(|found| PartIdentity { device: found.dev(), inode: found.ino() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{BlockSize, Manifest};
    use crate::proto::v2::SourceVersion;

    fn source_identity() -> SourceIdentity {
        let manifest = Manifest::new(3 << 16, BlockSize::new(1 << 16).unwrap()).unwrap();
        SourceIdentity { manifest, modified: 0, version: SourceVersion([0; 16]), remote: [0; 32] }
    }

    fn digest(byte: u8) -> RangeDigest {
        RangeDigest([byte; 32])
    }

    const PART: PartIdentity = PartIdentity { device: 1, inode: 2 };

    #[test]
    fn last_record_of_a_block_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.dtjournal");
        let journal = Journal::create(&path, &source_identity(), PART).unwrap();
        let block = source_identity().manifest.block(1).unwrap();
        for byte in [7, 8] {
            journal.record(block, digest(byte)).unwrap();
        }
        let part = tempfile::tempfile().unwrap();
        part.write_all_at(&vec![1; 3 << 16], 0).unwrap();
        let stale = StaleJournal::read(&path).unwrap().unwrap();
        let mut no_rehash = |_: Checked| panic!("no block is rehashed");
        let (recovered, is_less) =
            recover(stale.contents(), &part, Trust::Full, &mut no_rehash).unwrap().unwrap();
        assert_eq!(recovered.digests, [None, Some(digest(8)), None]);
        assert_eq!((recovered.done.len(), recovered.bytes, is_less), (1, 1 << 16, false));
    }

    #[test]
    fn record_that_could_not_be_written_does_not_count() {
        let full = sidecar::open_existing_for_writing(Path::new("/dev/full")).unwrap();
        let journal = Journal::new(full, Path::new("/dev/full"), [0; 16], len_of(0));
        assert!(is_disk_full(
            &journal.record(source_identity().manifest.block(0).unwrap(), digest(1)).unwrap_err()
        ));
        assert!(!journal.has_records());
    }

    #[test]
    fn torn_record_is_overwritten_by_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.dtjournal");
        let journal = Journal::create(&path, &source_identity(), PART).unwrap();
        journal.0.file.write_all_at(&[9; 20], len_of(0)).unwrap();
        journal.record(source_identity().manifest.block(2).unwrap(), digest(1)).unwrap();
        assert_eq!(StaleJournal::read(&path).unwrap().unwrap().contents().records.len(), 1);
    }

    #[test]
    fn overlong_journal_is_not_read_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.dtjournal");
        let journal = Journal::create(&path, &source_identity(), PART).unwrap();
        for _ in 0..100 {
            journal.record(source_identity().manifest.block(2).unwrap(), digest(1)).unwrap();
        }
        let n_read = StaleJournal::read(&path).unwrap().unwrap().contents().records.len();
        assert!((3..20).contains(&n_read), "{n_read}");
    }

    #[test]
    fn journal_is_removed_only_if_it_has_its_name() {
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
    fn boot_id_is_the_kernels() {
        let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().replace('-', "");
        let bytes = boot_id().unwrap();
        assert_eq!(text.trim(), bytes.map(|byte| format!("{byte:02x}")).concat());
    }
}
