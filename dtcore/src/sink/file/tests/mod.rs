//! Blocks that are verified, rejected, given up and received twice.

mod files;

use super::*;
use crate::manifest::BlockSize;
use crate::sink::ordered::ReorderBuffer;
use crate::sink::{Engine, PwriteStore, journal, open};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

const BLOCK: u64 = 64 << 10;

/// A file of three full blocks and a short one; every byte depends on its offset.
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

fn receive(lease: &mut BlockLease, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        lease.fill(&mut |space| bytes.read(space)).unwrap();
    }
}

/// All bytes of the block.
fn received(mut lease: BlockLease) -> Received {
    let bytes = bytes_of(&manifest(), manifest().range(lease.held.block));
    receive(&mut lease, &bytes);
    lease.finish().unwrap()
}

/// The block with its digest.
fn verified(lease: BlockLease) -> Verified {
    let digest = digest_of(&manifest(), lease.held.block);
    received(lease).verify(digest).unwrap()
}

fn content(store: &dyn Store, range: ByteRange) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    store.read(range, &mut |piece| bytes.write_all(piece))?;
    Ok(bytes)
}

fn sink_of(manifest: Manifest, store: Arc<dyn Store>, done: &BlockSet) -> io::Result<FileSink> {
    FileSink::new(manifest, store, None, done, Box::new(|| {}))
}

fn with_engine(engine: Engine) -> (File, FileSink) {
    let file = tempfile::tempfile().unwrap();
    let store = open(&file, engine, manifest().size()).unwrap();
    (file, sink_of(manifest(), store, &BlockSet::new(&manifest())).unwrap())
}

/// Runs a check with both engines and the reorder buffer.
fn everywhere(check: impl Fn(&str, &FileSink)) {
    check("map", &with_engine(Engine::Map).1);
    check("write", &with_engine(Engine::Write).1);
    let buffer = Arc::new(ReorderBuffer::new(manifest().size()));
    check("buffer", &sink_of(manifest(), buffer, &BlockSet::new(&manifest())).unwrap());
}

#[test]
fn block_does_not_count_before_its_commit() {
    everywhere(|name, sink| {
        for index in [3, 0, 2, 1] {
            let range = manifest().range(block(index));
            let verified = verified(sink.lease(block(index)).unwrap());
            assert!(content(&*sink.store, range).is_err(), "{name}");
            sink.commit(verified).unwrap();
            assert_eq!(content(&*sink.store, range).unwrap(), bytes_of(&manifest(), range), "{name}");
        }
        let all = ByteRange::new(0, manifest().size());
        assert_eq!(content(&*sink.store, all).unwrap(), bytes_of(&manifest(), all), "{name}");
    });
}

#[test]
fn blocks_of_a_run_wait_for_their_digests() {
    everywhere(|name, sink| {
        let run: Vec<_> = manifest().blocks().map(|block| received(sink.lease(block).unwrap())).collect();
        for received in run {
            let block = received.block();
            assert_eq!(received.digest, Some(digest_of(&manifest(), block)), "{name}");
            assert!(content(&*sink.store, manifest().range(block)).is_err(), "{name}: not verified yet");
            sink.commit(received.verify(digest_of(&manifest(), block)).unwrap()).unwrap();
        }
        let all = ByteRange::new(0, manifest().size());
        assert_eq!(content(&*sink.store, all).unwrap(), bytes_of(&manifest(), all), "{name}");
    });
}

#[test]
fn received_block_takes_no_memory_while_it_waits() {
    let store = Arc::new(PwriteStore::new(tempfile::tempfile().unwrap(), manifest().size()).unwrap());
    let sink = sink_of(manifest(), store.clone(), &BlockSet::new(&manifest())).unwrap();
    let leases: Vec<_> = (0..3).map(|index| sink.lease(block(index)).unwrap()).collect();
    assert_eq!(store.buffered(), 3 * BLOCK);
    let waiting: Vec<_> = leases.into_iter().map(received).collect();
    assert_eq!((waiting.len(), store.buffered()), (3, 0));
}

#[test]
fn mismatched_block_is_given_back_and_received_again() {
    everywhere(|name, sink| {
        for is_scratch in [false, true] {
            let lease = || if is_scratch { sink.lease_scratch(block(1)) } else { sink.lease(block(1)) };
            let mut wrong = bytes_of(&manifest(), manifest().range(block(1)));
            wrong[77] ^= 1;
            let mut first = lease().unwrap();
            receive(&mut first, &wrong);
            let digest = digest_of(&manifest(), block(1));
            assert!(first.finish().unwrap().verify(digest).is_none(), "{name}");
            let verified = verified(lease().unwrap());
            assert_eq!((verified.block(), verified.digest()), (block(1), digest));
            match sink.commit(verified) {
                Ok(()) if !is_scratch => {}
                Err(CommitError::AlreadyThere) if is_scratch => {}
                other => panic!("{name}: {other:?}"),
            }
        }
        let range = manifest().range(block(1));
        assert_eq!(content(&*sink.store, range).unwrap(), bytes_of(&manifest(), range), "{name}");
    });
}

#[test]
fn incomplete_block_is_not_finished() {
    everywhere(|name, sink| {
        for index in [0, 3] {
            let bytes = bytes_of(&manifest(), manifest().range(block(index)));
            let incomplete = |mut lease: BlockLease| {
                receive(&mut lease, &bytes[1..]);
                lease
            };
            for lease in [BlockLease::finish, BlockLease::finish_unhashed] {
                let result = lease(incomplete(sink.lease(block(index)).unwrap()));
                assert_eq!(result.unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "{name}");
                let result = lease(incomplete(sink.lease_scratch(block(index)).unwrap()));
                assert_eq!(result.unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "{name}");
            }
        }
    });
}

#[test]
fn unhashed_block_is_accepted_with_any_digest() {
    everywhere(|name, sink| {
        for index in [0, 3] {
            let range = manifest().range(block(index));
            let mut lease = sink.lease(block(index)).unwrap();
            receive(&mut lease, &bytes_of(&manifest(), range));
            let received = lease.finish_unhashed().unwrap();
            assert_eq!(received.digest, None);
            sink.commit(received.verify(RangeDigest([7; 32])).unwrap()).unwrap();
            assert_eq!(content(&*sink.store, range).unwrap(), bytes_of(&manifest(), range), "{name}");
        }
    });
}

#[test]
fn block_has_one_lease_at_a_time() {
    everywhere(|name, sink| {
        let mut lease = sink.lease(block(2)).unwrap();
        receive(&mut lease, b"some");
        assert!(sink.lease(block(2)).is_none(), "{name}");
        assert!(sink.lease(block(1)).is_some(), "{name}");
        drop(lease);
        let received = received(sink.lease(block(2)).unwrap());
        assert!(sink.lease(block(2)).is_none(), "{name}: it waits for its digest");
        drop(received);
        sink.commit(verified(sink.lease(block(2)).unwrap())).unwrap();
        assert!(sink.lease(block(2)).is_none(), "{name}: it is there");
    });
}

#[test]
fn first_verified_copy_gets_the_place_once_it_is_free() {
    everywhere(|name, sink| {
        let slow = sink.lease(block(0)).unwrap();
        let (scratch, late) = (
            verified(sink.lease_scratch(block(0)).unwrap()),
            verified(sink.lease_scratch(block(0)).unwrap()),
        );
        let Err(CommitError::Occupied(scratch)) = sink.commit(scratch) else { panic!("{name}") };
        let range = manifest().range(block(0));
        assert!(content(&*sink.store, range).is_err(), "{name}");
        drop(slow);
        sink.commit(scratch).unwrap();
        assert_eq!(content(&*sink.store, range).unwrap(), bytes_of(&manifest(), range), "{name}");
        assert!(matches!(sink.commit(late), Err(CommitError::AlreadyThere)), "{name}");
        assert!(sink.lease(block(0)).is_none(), "{name}");
    });
}

#[test]
fn notice_is_given_when_a_place_is_free_or_filled_and_only_then() {
    for engine in [Engine::Map, Engine::Write] {
        let (n_notices, sink) =
            (Arc::new(AtomicUsize::new(0)), Arc::new(std::sync::OnceLock::<FileSink>::new()));
        let (counted, noticed) = (Arc::clone(&n_notices), Arc::clone(&sink));
        let notify = move || {
            counted.fetch_add(1, Ordering::Relaxed);
            // Nothing is locked, and nobody else has the place.
            if let Some(sink) = noticed.get()
                && !sink.store.is_filled(manifest().range(block(0)))
            {
                assert!(sink.store.lease(manifest().range(block(0))).is_some());
            }
        };
        let store = open(&tempfile::tempfile().unwrap(), engine, manifest().size()).unwrap();
        let none = BlockSet::new(&manifest());
        sink.set(FileSink::new(manifest(), store, None, &none, Box::new(notify)).unwrap()).unwrap();
        let sink = sink.get().unwrap();
        let mut expected = 0;
        let mut check = |more: usize| {
            expected += more;
            assert_eq!(n_notices.load(Ordering::Relaxed), expected, "{engine}");
        };

        drop(sink.lease(block(0)));
        check(1);
        drop(received(sink.lease(block(0)).unwrap()));
        check(1);
        assert!(received(sink.lease(block(0)).unwrap()).verify(RangeDigest([0; 32])).is_none());
        check(1);
        assert!(sink.lease(block(0)).unwrap().finish().is_err());
        check(1);
        drop(verified(sink.lease(block(0)).unwrap()));
        check(1);
        let own = verified(sink.lease(block(0)).unwrap());
        let scratch = verified(sink.lease_scratch(block(0)).unwrap());
        let Err(CommitError::Occupied(scratch)) = sink.commit(scratch) else { panic!("{engine}") };
        check(0);
        sink.commit(own).unwrap();
        check(1);
        assert!(matches!(sink.commit(scratch), Err(CommitError::AlreadyThere)));
        check(1);
    }
}

#[test]
fn blocks_of_an_earlier_transfer_can_be_read_and_are_not_leased() {
    for engine in [Engine::Map, Engine::Write] {
        let file = tempfile::tempfile().unwrap();
        let range = manifest().range(block(1));
        file.write_all_at(&bytes_of(&manifest(), range), range.start()).unwrap();
        let mut done = BlockSet::new(&manifest());
        done.insert(block(1));
        let sink = sink_of(manifest(), open(&file, engine, manifest().size()).unwrap(), &done).unwrap();
        assert_eq!(content(&*sink.store, range).unwrap(), bytes_of(&manifest(), range), "{engine}");
        assert!(sink.lease(block(1)).is_none(), "{engine}");
        let scratch = verified(sink.lease_scratch(block(1)).unwrap());
        assert!(matches!(sink.commit(scratch), Err(CommitError::AlreadyThere)), "{engine}");
        assert!(sink.lease(block(0)).is_some(), "{engine}");
    }
}

#[test]
fn blocks_of_an_earlier_transfer_must_have_a_place() {
    for engine in [Engine::Map, Engine::Write] {
        let store = open(&tempfile::tempfile().unwrap(), engine, BLOCK).unwrap();
        let mut done = BlockSet::new(&manifest());
        done.insert(block(1));
        assert!(sink_of(manifest(), store, &done).is_err(), "{engine}");
    }
}
