//! Blocks of all fates.

use super::*;
use crate::manifest::BlockSize;
use crate::sink::{Engine, ReorderBuffer, journal, open};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;

const BLOCK: u64 = 64 << 10;

/// A file of three whole blocks and a short one, in which every byte tells its place.
fn manifest() -> Manifest {
    Manifest::new(3 * BLOCK + 1000, BlockSize::new(BLOCK).unwrap()).unwrap()
}

fn block(index: u64) -> BlockId {
    manifest().block(index).unwrap()
}

fn bytes_of(manifest: &Manifest, range: ByteRange) -> Vec<u8> {
    assert!(range.end() <= manifest.size());
    (range.start()..range.end()).map(|at| u8::try_from(at * 31 % 251).unwrap()).collect()
}

fn digest_of(manifest: &Manifest, block: BlockId) -> RangeDigest {
    RangeDigest::of(manifest.size(), manifest.range(block), &bytes_of(manifest, manifest.range(block)))
        .unwrap()
}

fn receive(leased: &mut Leased, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        leased.fill(&mut |space| bytes.read(space)).unwrap();
    }
}

/// The block received whole and right.
fn received(mut leased: Leased) -> Verified {
    let manifest = manifest();
    let block = leased.block();
    receive(&mut leased, &bytes_of(&manifest, manifest.range(block)));
    leased.verify(digest_of(&manifest, block)).unwrap()
}

fn content(store: &dyn Store, range: ByteRange) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    store.read(range, &mut |piece| bytes.write_all(piece))?;
    Ok(bytes)
}

fn of_engine(engine: Engine) -> (File, FileSink) {
    let file = tempfile::tempfile().unwrap();
    let store = open(&file, engine, Some(manifest().size())).unwrap();
    (file, FileSink::new(manifest(), store, None, BlockSet::new(&manifest())).unwrap())
}

/// Runs a check on both engines and the window.
fn everywhere(check: impl Fn(&str, &FileSink)) {
    check("map", &of_engine(Engine::Map).1);
    check("write", &of_engine(Engine::Write).1);
    let window = Arc::new(ReorderBuffer::new(manifest().size()));
    check("window", &FileSink::new(manifest(), window, None, BlockSet::new(&manifest())).unwrap());
}

#[test]
fn nothing_of_a_block_counts_before_it_is_committed() {
    everywhere(|name, file| {
        for index in [3, 0, 2, 1] {
            let range = manifest().range(block(index));
            let verified = received(file.lease(block(index)).unwrap());
            assert!(content(&**file.store(), range).is_err(), "{name}");
            file.commit(verified).unwrap();
            assert_eq!(content(&**file.store(), range).unwrap(), bytes_of(&manifest(), range), "{name}");
        }
        let all = ByteRange::new(0, manifest().size());
        assert_eq!(content(&**file.store(), all).unwrap(), bytes_of(&manifest(), all), "{name}");
    });
}

#[test]
fn a_wrong_block_is_given_back_empty_and_received_again() {
    everywhere(|name, file| {
        for leased in [file.lease(block(1)).unwrap(), file.lease_scratch(block(1)).unwrap()] {
            let mut leased = leased;
            let mut wrong = bytes_of(&manifest(), manifest().range(block(1)));
            wrong[77] ^= 1;
            receive(&mut leased, &wrong);
            let digest = digest_of(&manifest(), block(1));
            let Err(Unverified::Mismatch(leased)) = leased.verify(digest) else { panic!("{name}") };
            assert_eq!(leased.remaining(), BLOCK, "{name}");
            assert!(file.lease(block(1)).is_none(), "{name}: it is leased still, or there");
            let verified = received(leased);
            assert_eq!((verified.block(), verified.digest()), (block(1), digest));
            match file.commit(verified) {
                Ok(()) | Err(CommitError::AlreadyThere) => {}
                other => panic!("{name}: {other:?}"),
            }
        }
    });
}

#[test]
fn a_block_of_which_bytes_are_missing_is_neither_verified_nor_trusted() {
    everywhere(|name, file| {
        for index in [0, 3] {
            let range = manifest().range(block(index));
            let bytes = bytes_of(&manifest(), range);
            let digest = digest_of(&manifest(), block(index));
            let mut leased = file.lease(block(index)).unwrap();
            receive(&mut leased, &bytes[1..]);
            let Err(Unverified::Mismatch(mut leased)) = leased.trust_unverified(digest) else {
                panic!("{name}")
            };
            receive(&mut leased, &bytes[1..]);
            let Err(Unverified::Mismatch(mut leased)) = leased.verify(digest) else { panic!("{name}") };
            receive(&mut leased, &bytes);
            file.commit(leased.trust_unverified(digest).unwrap()).unwrap();
            assert_eq!(content(&**file.store(), range).unwrap(), bytes, "{name}");
        }
    });
}

#[test]
fn a_block_is_leased_to_one_and_again_when_that_one_gives_up() {
    everywhere(|name, file| {
        let mut leased = file.lease(block(2)).unwrap();
        receive(&mut leased, b"some");
        assert!(file.lease(block(2)).is_none(), "{name}");
        assert!(file.lease(block(1)).is_some(), "{name}");
        drop(leased);
        file.commit(received(file.lease(block(2)).unwrap())).unwrap();
        assert!(file.lease(block(2)).is_none(), "{name}: it is there");
    });
}

#[test]
fn of_two_copies_the_first_verified_one_gets_the_place_as_soon_as_it_is_free() {
    everywhere(|name, file| {
        let slow = file.lease(block(0)).unwrap();
        let (lease_scratch, late) = (
            received(file.lease_scratch(block(0)).unwrap()),
            received(file.lease_scratch(block(0)).unwrap()),
        );
        let Err(CommitError::Occupied(lease_scratch)) = file.commit(lease_scratch) else { panic!("{name}") };
        let range = manifest().range(block(0));
        assert!(content(&**file.store(), range).is_err(), "{name}");
        drop(slow);
        file.commit(lease_scratch).unwrap();
        assert_eq!(content(&**file.store(), range).unwrap(), bytes_of(&manifest(), range), "{name}");
        assert!(matches!(file.commit(late), Err(CommitError::AlreadyThere)), "{name}");
        assert!(file.lease(block(0)).is_none(), "{name}");
    });
}

#[test]
fn what_an_earlier_transfer_left_can_be_read_and_is_not_leased() {
    for engine in [Engine::Map, Engine::Write] {
        let file = tempfile::tempfile().unwrap();
        let range = manifest().range(block(1));
        file.write_all_at(&bytes_of(&manifest(), range), range.start()).unwrap();
        let mut done = BlockSet::new(&manifest());
        done.insert(block(1));
        let store = open(&file, engine, Some(manifest().size())).unwrap();
        let blocks = FileSink::new(manifest(), store, None, done).unwrap();
        assert_eq!(content(&**blocks.store(), range).unwrap(), bytes_of(&manifest(), range), "{engine}");
        assert!(blocks.lease(block(1)).is_none(), "{engine}");
        let lease_scratch = received(blocks.lease_scratch(block(1)).unwrap());
        assert!(matches!(blocks.commit(lease_scratch), Err(CommitError::AlreadyThere)), "{engine}");
        assert!(blocks.lease(block(0)).is_some(), "{engine}");
    }
}

#[test]
fn what_is_said_to_be_there_must_have_a_place() {
    for engine in [Engine::Map, Engine::Write] {
        let store = open(&tempfile::tempfile().unwrap(), engine, Some(BLOCK)).unwrap();
        let mut done = BlockSet::new(&manifest());
        done.insert(block(1));
        assert!(FileSink::new(manifest(), store, None, done).is_err(), "{engine}");
    }
}

#[test]
fn a_large_block_is_received_in_steps() {
    let size = BlockSize::new(16 << 20).unwrap();
    let manifest = Manifest::new(17 << 20, size).unwrap();
    let first = manifest.block(0).unwrap();
    for engine in [Engine::Map, Engine::Write] {
        let store = open(&tempfile::tempfile().unwrap(), engine, Some(manifest.size())).unwrap();
        let file = FileSink::new(manifest, store, None, BlockSet::new(&manifest)).unwrap();
        let bytes = bytes_of(&manifest, manifest.range(first));
        let mut leased = file.lease(first).unwrap();
        receive(&mut leased, &bytes);
        file.commit(leased.verify(digest_of(&manifest, first)).unwrap()).unwrap();
        assert_eq!(content(&**file.store(), manifest.range(first)).unwrap(), bytes, "{engine}");
    }
}

#[test]
fn a_file_truncated_under_a_lease_is_an_error_and_no_signal() {
    let (pages, blocks) = of_engine(Engine::Map);
    let mut leased = blocks.lease(block(2)).unwrap();
    leased.fill(&mut |_| Ok(100)).unwrap();
    pages.set_len(4096).unwrap();
    // As requester does: the kernel finds no page to put the bytes into.
    let zeros = File::open("/dev/zero").unwrap();
    let mut kernel = |space: &mut [u8]| (&zeros).read(space);
    let Err(FillError::Store(error)) = leased.fill(&mut kernel) else { panic!("pages without a file") };
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    assert!(matches!(leased.verify(digest_of(&manifest(), block(2))), Err(Unverified::Store(_))));
    let mut leased = blocks.lease(block(1)).unwrap();
    assert!(matches!(leased.fill(&mut kernel), Err(FillError::Store(_))), "nor are there fresh ones");
}

#[test]
fn a_failing_source_takes_nothing() {
    everywhere(|name, file| {
        let mut leased = file.lease(block(0)).unwrap();
        let mut broken = |_: &mut [u8]| Err(io::ErrorKind::ConnectionReset.into());
        assert!(matches!(leased.fill(&mut broken), Err(FillError::Source(_))), "{name}");
        assert_eq!(leased.remaining(), BLOCK, "{name}");
        assert_eq!(leased.fill(&mut |_| Ok(usize::MAX)).unwrap(), usize::try_from(BLOCK).unwrap(), "{name}");
    });
}

fn journal_in(folder: &tempfile::TempDir) -> Journal {
    let source_identity = journal::SourceIdentity {
        manifest: manifest(),
        modified: 0,
        version: [0; 16].into(),
        remote: [0; 32],
    };
    let part = journal::PartIdentity { device: 0, inode: 0 };
    Journal::create(&folder.path().join("out.dtjournal"), &source_identity, part).unwrap()
}

#[test]
fn a_block_is_recorded_when_it_is_in_its_place_and_not_before() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal_in(&folder);
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(manifest().size()).unwrap();
    // It can be reserved and not be written.
    let read_only = File::open(file.path()).unwrap();
    let store: Arc<dyn Store> = Arc::new(crate::sink::store::PwriteStore::new(read_only).unwrap());
    let blocks = FileSink::new(manifest(), store, Some(journal.clone()), BlockSet::new(&manifest())).unwrap();
    let verified = received(blocks.lease(block(0)).unwrap());
    assert!(matches!(blocks.commit(verified), Err(CommitError::Store(_))));
    assert!(!journal.has_records());
    assert!(blocks.lease(block(0)).is_some(), "it is free again");

    let store = open(file.as_file(), Engine::Write, Some(manifest().size())).unwrap();
    let blocks = FileSink::new(manifest(), store, Some(journal.clone()), BlockSet::new(&manifest())).unwrap();
    blocks.commit(received(blocks.lease(block(0)).unwrap())).unwrap();
    assert!(journal.has_records());
}

#[test]
fn many_threads_receive_one_file() {
    everywhere(|name, file| {
        let next = Mutex::new(manifest().blocks().chain(manifest().blocks()).collect::<Vec<_>>().into_iter());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while let Some(block) = { next.lock().unwrap().next() } {
                        let leased = file.lease(block).unwrap_or_else(|| file.lease_scratch(block).unwrap());
                        let mut result = file.commit(received(leased));
                        while let Err(CommitError::Occupied(verified)) = result {
                            std::thread::yield_now();
                            result = file.commit(verified);
                        }
                        assert!(matches!(result, Ok(()) | Err(CommitError::AlreadyThere)), "{name}");
                    }
                });
            }
        });
        let all = ByteRange::new(0, manifest().size());
        assert_eq!(content(&**file.store(), all).unwrap(), bytes_of(&manifest(), all), "{name}");
    });
}

#[test]
fn what_is_in_buffers_is_bounded() {
    for (engine, block, most) in
        [(Engine::Write, 512 << 10, 256), (Engine::Write, 16 << 20, 8), (Engine::Map, 16 << 20, usize::MAX)]
    {
        let manifest = Manifest::new(10 * block, BlockSize::new(block).unwrap()).unwrap();
        let store = open(&tempfile::tempfile().unwrap(), engine, Some(manifest.size())).unwrap();
        let file = FileSink::new(manifest, store, None, BlockSet::new(&manifest)).unwrap();
        assert_eq!(file.most_at_once(), most, "{engine}, {block}");
        // A second copy is state no more memory than that either.
        let spares: Vec<_> = manifest.blocks().map_while(|block| file.lease_scratch(block)).collect();
        assert_eq!(spares.len(), usize::try_from(BUFFERS / block).unwrap().min(10), "{engine}, {block}");
    }
}
