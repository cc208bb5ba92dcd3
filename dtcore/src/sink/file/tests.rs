//! Blocks of all fates.

use super::*;
use crate::manifest::BlockSize;
use crate::sink::{Engine, Window, journal, open};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;

const BLOCK: u64 = 64 << 10;

/// A file of three whole blocks and a short one, in which every byte tells its place.
fn plan() -> BlockPlan {
    BlockPlan::new(3 * BLOCK + 1000, BlockSize::new(BLOCK).unwrap()).unwrap()
}

fn block(index: u64) -> BlockIndex {
    plan().block(index).unwrap()
}

fn bytes_of(plan: &BlockPlan, range: ByteRange) -> Vec<u8> {
    assert!(range.end() <= plan.size());
    (range.start()..range.end()).map(|at| u8::try_from(at * 31 % 251).unwrap()).collect()
}

fn digest_of(plan: &BlockPlan, block: BlockIndex) -> RangeDigest {
    RangeDigest::of(plan.size(), plan.range(block), &bytes_of(plan, plan.range(block))).unwrap()
}

fn receive(leased: &mut Leased, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        leased.fill(&mut |space| bytes.read(space)).unwrap();
    }
}

/// The block received whole and right.
fn received(mut leased: Leased) -> Verified {
    let plan = plan();
    let block = leased.block();
    receive(&mut leased, &bytes_of(&plan, plan.range(block)));
    leased.verify(digest_of(&plan, block)).unwrap()
}

fn content(store: &dyn Store, range: ByteRange) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    store.read(range, &mut |piece| bytes.write_all(piece))?;
    Ok(bytes)
}

fn of_engine(engine: Engine) -> (File, BlockFile) {
    let file = tempfile::tempfile().unwrap();
    let store = open(&file, engine, Some(plan().size())).unwrap();
    (file, BlockFile::new(plan(), store, None, BlockSet::new(&plan())).unwrap())
}

/// Runs a check on both engines and the window.
fn everywhere(check: impl Fn(&str, &BlockFile)) {
    check("map", &of_engine(Engine::Map).1);
    check("write", &of_engine(Engine::Write).1);
    let window = Arc::new(Window::new(plan().size()));
    check("window", &BlockFile::new(plan(), window, None, BlockSet::new(&plan())).unwrap());
}

#[test]
fn nothing_of_a_block_counts_before_it_is_committed() {
    everywhere(|name, file| {
        for index in [3, 0, 2, 1] {
            let range = plan().range(block(index));
            let verified = received(file.lease(block(index)).unwrap());
            assert!(content(&**file.store(), range).is_err(), "{name}");
            file.commit(verified).unwrap();
            assert_eq!(content(&**file.store(), range).unwrap(), bytes_of(&plan(), range), "{name}");
        }
        let all = ByteRange::new(0, plan().size());
        assert_eq!(content(&**file.store(), all).unwrap(), bytes_of(&plan(), all), "{name}");
    });
}

#[test]
fn a_wrong_block_is_given_back_empty_and_received_again() {
    everywhere(|name, file| {
        for leased in [file.lease(block(1)).unwrap(), file.spare(block(1)).unwrap()] {
            let mut leased = leased;
            let mut wrong = bytes_of(&plan(), plan().range(block(1)));
            wrong[77] ^= 1;
            receive(&mut leased, &wrong);
            let digest = digest_of(&plan(), block(1));
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
            let range = plan().range(block(index));
            let bytes = bytes_of(&plan(), range);
            let digest = digest_of(&plan(), block(index));
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
        let (spare, late) =
            (received(file.spare(block(0)).unwrap()), received(file.spare(block(0)).unwrap()));
        let Err(CommitError::Occupied(spare)) = file.commit(spare) else { panic!("{name}") };
        let range = plan().range(block(0));
        assert!(content(&**file.store(), range).is_err(), "{name}");
        drop(slow);
        file.commit(spare).unwrap();
        assert_eq!(content(&**file.store(), range).unwrap(), bytes_of(&plan(), range), "{name}");
        assert!(matches!(file.commit(late), Err(CommitError::AlreadyThere)), "{name}");
        assert!(file.lease(block(0)).is_none(), "{name}");
    });
}

#[test]
fn what_an_earlier_transfer_left_can_be_read_and_is_not_leased() {
    for engine in [Engine::Map, Engine::Write] {
        let file = tempfile::tempfile().unwrap();
        let range = plan().range(block(1));
        file.write_all_at(&bytes_of(&plan(), range), range.start()).unwrap();
        let mut done = BlockSet::new(&plan());
        done.insert(block(1));
        let store = open(&file, engine, Some(plan().size())).unwrap();
        let blocks = BlockFile::new(plan(), store, None, done).unwrap();
        assert_eq!(content(&**blocks.store(), range).unwrap(), bytes_of(&plan(), range), "{engine}");
        assert!(blocks.lease(block(1)).is_none(), "{engine}");
        let spare = received(blocks.spare(block(1)).unwrap());
        assert!(matches!(blocks.commit(spare), Err(CommitError::AlreadyThere)), "{engine}");
        assert!(blocks.lease(block(0)).is_some(), "{engine}");
    }
}

#[test]
fn what_is_said_to_be_there_must_have_a_place() {
    for engine in [Engine::Map, Engine::Write] {
        let store = open(&tempfile::tempfile().unwrap(), engine, Some(BLOCK)).unwrap();
        let mut done = BlockSet::new(&plan());
        done.insert(block(1));
        assert!(BlockFile::new(plan(), store, None, done).is_err(), "{engine}");
    }
}

#[test]
fn a_large_block_is_received_in_steps() {
    let size = BlockSize::new(16 << 20).unwrap();
    let plan = BlockPlan::new(17 << 20, size).unwrap();
    let first = plan.block(0).unwrap();
    for engine in [Engine::Map, Engine::Write] {
        let store = open(&tempfile::tempfile().unwrap(), engine, Some(plan.size())).unwrap();
        let file = BlockFile::new(plan, store, None, BlockSet::new(&plan)).unwrap();
        let bytes = bytes_of(&plan, plan.range(first));
        let mut leased = file.lease(first).unwrap();
        receive(&mut leased, &bytes);
        file.commit(leased.verify(digest_of(&plan, first)).unwrap()).unwrap();
        assert_eq!(content(&**file.store(), plan.range(first)).unwrap(), bytes, "{engine}");
    }
}

#[test]
fn a_file_truncated_under_a_lease_is_an_error_and_no_signal() {
    let (pages, blocks) = of_engine(Engine::Map);
    let mut leased = blocks.lease(block(2)).unwrap();
    leased.fill(&mut |_| Ok(100)).unwrap();
    pages.set_len(4096).unwrap();
    // As receiving does: the kernel finds no page to put the bytes into.
    let zeros = File::open("/dev/zero").unwrap();
    let mut kernel = |space: &mut [u8]| (&zeros).read(space);
    let Err(FillError::Store(error)) = leased.fill(&mut kernel) else { panic!("pages without a file") };
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    assert!(matches!(leased.verify(digest_of(&plan(), block(2))), Err(Unverified::Store(_))));
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
    let origin = journal::Origin { plan: plan(), modified: 0, version: [0; 16].into(), remote: [0; 32] };
    let part = journal::PartIdentity { device: 0, inode: 0 };
    Journal::create(&folder.path().join("out.dtjournal"), &origin, part).unwrap()
}

#[test]
fn a_block_is_recorded_when_it_is_in_its_place_and_not_before() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal_in(&folder);
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(plan().size()).unwrap();
    // It can be reserved and not be written.
    let read_only = File::open(file.path()).unwrap();
    let store: Arc<dyn Store> = Arc::new(crate::sink::store::Positioned::new(read_only).unwrap());
    let blocks = BlockFile::new(plan(), store, Some(journal.clone()), BlockSet::new(&plan())).unwrap();
    let verified = received(blocks.lease(block(0)).unwrap());
    assert!(matches!(blocks.commit(verified), Err(CommitError::Store(_))));
    assert!(!journal.has_records());
    assert!(blocks.lease(block(0)).is_some(), "it is free again");

    let store = open(file.as_file(), Engine::Write, Some(plan().size())).unwrap();
    let blocks = BlockFile::new(plan(), store, Some(journal.clone()), BlockSet::new(&plan())).unwrap();
    blocks.commit(received(blocks.lease(block(0)).unwrap())).unwrap();
    assert!(journal.has_records());
}

#[test]
fn many_threads_receive_one_file() {
    everywhere(|name, file| {
        let next = Mutex::new(plan().blocks().chain(plan().blocks()).collect::<Vec<_>>().into_iter());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while let Some(block) = { next.lock().unwrap().next() } {
                        let leased = file.lease(block).unwrap_or_else(|| file.spare(block).unwrap());
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
        let all = ByteRange::new(0, plan().size());
        assert_eq!(content(&**file.store(), all).unwrap(), bytes_of(&plan(), all), "{name}");
    });
}

#[test]
fn what_is_in_buffers_is_bounded() {
    for (engine, block, most) in
        [(Engine::Write, 512 << 10, 256), (Engine::Write, 16 << 20, 8), (Engine::Map, 16 << 20, usize::MAX)]
    {
        let plan = BlockPlan::new(10 * block, BlockSize::new(block).unwrap()).unwrap();
        let store = open(&tempfile::tempfile().unwrap(), engine, Some(plan.size())).unwrap();
        let file = BlockFile::new(plan, store, None, BlockSet::new(&plan)).unwrap();
        assert_eq!(file.most_at_once(), most, "{engine}, {block}");
        // A second copy is worth no more memory than that either.
        let spares: Vec<_> = plan.blocks().map_while(|block| file.spare(block)).collect();
        assert_eq!(spares.len(), usize::try_from(BUFFERS / block).unwrap().min(10), "{engine}, {block}");
    }
}
