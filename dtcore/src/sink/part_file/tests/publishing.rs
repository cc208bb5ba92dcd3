//! The fixture: a folder for an output, and transfers to it that are killed.

use std::fs::OpenOptions;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::{kill, names};
use crate::digest::RangeDigest;
use crate::manifest::{BlockId, BlockSet, BlockSize, ByteRange, Manifest};
use crate::proto::v2::SourceVersion;
use crate::sink::journal::{HEADER_LEN, JournalHeader, Outcome, Recovered, SourceIdentity};
use crate::sink::part_file::*;
use crate::sink::{Engine, FileSink, open};

pub(super) const BLOCK: u64 = 64 << 10;

/// Of a file of three full blocks and a short one.
pub(super) fn source_identity() -> SourceIdentity {
    let manifest = Manifest::new(3 * BLOCK + 1000, BlockSize::new(BLOCK).unwrap()).unwrap();
    SourceIdentity {
        manifest,
        modified: 1,
        version: SourceVersion([2; 16]),
        remote: SourceIdentity::remote("host:1", b"name"),
    }
}

/// The file's bytes, which depend on their offset.
pub(super) fn bytes_of(range: ByteRange) -> Vec<u8> {
    (range.start()..range.end()).map(|at| u8::try_from(at * 31 % 251).unwrap()).collect()
}

pub(super) fn digest_of(block: BlockId) -> RangeDigest {
    let manifest = source_identity().manifest;
    RangeDigest::of(manifest.size(), manifest.range(block), &bytes_of(manifest.range(block))).unwrap()
}

/// Starts a transfer.
pub(super) fn begin(
    part: &mut PartFile,
    source_identity: &SourceIdentity,
) -> Result<(Option<Journal>, Recovered), BeginError> {
    match begin_with(part, source_identity, Proof::Pending)? {
        Begun::Ready(journal, recovered) => Ok((journal, recovered)),
        Begun::Unverified(claimed) => panic!("{claimed:?}"),
    }
}

/// Starts a transfer of which this is verified.
pub(super) fn begin_with(
    part: &mut PartFile,
    source_identity: &SourceIdentity,
    proof: Proof,
) -> Result<Begun, BeginError> {
    part.begin(source_identity, proof, &mut |_| ControlFlow::Continue(()))
}

/// A folder for an output.
pub(super) struct Folder {
    pub(super) dir: tempfile::TempDir,
    pub(super) output: PathBuf,
}

impl Folder {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("out");
        Self { dir, output }
    }

    /// A folder in which a transfer was killed that had received blocks 0 and 2.
    pub(super) fn after_kill() -> Self {
        let folder = Self::new();
        let (part, _) = folder.received(Engine::Map, &[0, 2]);
        kill(part);
        folder
    }

    pub(super) fn part(&self) -> PathBuf {
        part_path(&self.output)
    }

    pub(super) fn journal(&self) -> PathBuf {
        journal_path(&self.output)
    }

    pub(super) fn names(&self) -> Vec<String> {
        names(self.dir.path())
    }

    pub(super) fn lock(&self) -> PartFile {
        PartFile::lock(&self.output, Links::Followed, Clobber::Replace, Resume::Allowed).unwrap()
    }

    /// The part file of a transfer that has received these blocks, unless they were in place before.
    pub(super) fn received(&self, engine: Engine, indices: &[u64]) -> (PartFile, Recovered) {
        let mut part = self.lock();
        let (journal, recovered) = begin(&mut part, &source_identity()).unwrap();
        let manifest = source_identity().manifest;
        let store = open(&part.file, engine, manifest.size()).unwrap();
        let blocks =
            FileSink::new(manifest, Arc::clone(&store), journal, &recovered.done, Box::new(|| {})).unwrap();
        for index in indices {
            let block = manifest.block(*index).unwrap();
            let Some(mut leased) = blocks.lease(block) else { continue };
            let bytes = bytes_of(manifest.range(block));
            let mut left = bytes.as_slice();
            while leased.remaining() > 0 {
                leased.fill(&mut |space| io::Read::read(&mut left, space)).unwrap();
            }
            blocks.commit(leased.finish().unwrap().verify(digest_of(block)).unwrap()).unwrap();
        }
        for block in manifest.blocks().filter(|block| recovered.done.contains(*block)) {
            let mut bytes = Vec::new();
            let mut keep = |piece: &[u8]| io::Write::write_all(&mut bytes, piece);
            store.read(manifest.range(block), &mut keep).unwrap();
            assert_eq!(bytes, bytes_of(manifest.range(block)), "block {block} was reported to be in place");
        }
        (part, recovered)
    }

    /// Receives all missing blocks and publishes the file; returns the blocks that were in place before.
    #[track_caller]
    pub(super) fn finish(&self) -> (Vec<u64>, Outcome) {
        let (part, recovered) = self.received(Engine::Auto, &[0, 1, 2, 3]);
        crate::sink::part_file::publish(
            part,
            source_identity().manifest.size(),
            Durability::Cached,
            Attributes::default(),
        )
        .unwrap();
        assert_eq!(
            fs::read(&self.output).unwrap(),
            bytes_of(ByteRange::new(0, source_identity().manifest.size()))
        );
        assert_eq!(self.names(), ["out"]);
        (indices(&recovered.done), recovered.outcome)
    }

    /// Changes the journal's header.
    pub(super) fn edit_header(&self, edit: impl FnOnce(&mut JournalHeader)) {
        let mut bytes = fs::read(self.journal()).unwrap();
        let mut header = JournalHeader::decode(&bytes).unwrap();
        edit(&mut header);
        bytes[..HEADER_LEN].copy_from_slice(&header.encode());
        fs::write(self.journal(), bytes).unwrap();
    }

    pub(super) fn flip_byte(&self, at: u64) {
        let part = OpenOptions::new().read(true).write(true).open(self.part()).unwrap();
        let mut byte = [0];
        part.read_exact_at(&mut byte, at).unwrap();
        part.write_all_at(&[byte[0] ^ 1], at).unwrap();
    }
}

pub(super) fn indices(done: &BlockSet) -> Vec<u64> {
    source_identity()
        .manifest
        .blocks()
        .filter(|block| done.contains(*block))
        .map(|block| block.value().into())
        .collect()
}

pub(super) fn is_restarted(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Restarted { .. })
}
