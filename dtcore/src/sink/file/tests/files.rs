//! Blocks in files: large and truncated ones, the journal, many threads.

use super::*;
use crate::proto::v2::SourceVersion;

#[test]
fn large_block_is_received_in_steps() {
    let size = BlockSize::new(16 << 20).unwrap();
    let manifest = Manifest::new(17 << 20, size).unwrap();
    let first = manifest.block(0).unwrap();
    for engine in [Engine::Map, Engine::Write] {
        let store = open(&tempfile::tempfile().unwrap(), engine, manifest.size()).unwrap();
        let sink = sink_of(manifest, store, &BlockSet::new(&manifest)).unwrap();
        let bytes = bytes_of(&manifest, manifest.range(first));
        let mut lease = sink.lease(first).unwrap();
        receive(&mut lease, &bytes);
        sink.commit(lease.finish().unwrap().verify(digest_of(&manifest, first)).unwrap()).unwrap();
        assert_eq!(content(&*sink.store, manifest.range(first)).unwrap(), bytes, "{engine}");
    }
}

#[test]
fn truncated_file_is_an_error_and_not_a_signal() {
    let (file, sink) = with_engine(Engine::Map);
    let full = received(sink.lease(block(0)).unwrap());
    let mut lease = sink.lease(block(2)).unwrap();
    lease.fill(&mut |_| Ok(100)).unwrap();
    let mut complete = sink.lease(block(3)).unwrap();
    receive(&mut complete, &bytes_of(&manifest(), manifest().range(block(3))));
    file.set_len(4096).unwrap();
    // As a socket does: the kernel finds no page to put the bytes into.
    let zeros = File::open("/dev/zero").unwrap();
    let mut kernel = |space: &mut [u8]| (&zeros).read(space);
    let Err(FillError::Store(error)) = lease.fill(&mut kernel) else { panic!("pages without a file") };
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    lease.finish().unwrap_err();
    complete.finish().unwrap_err();
    let mut lease = sink.lease(block(1)).unwrap();
    assert!(matches!(lease.fill(&mut kernel), Err(FillError::Store(_))), "nor are there fresh ones");
    // Its bytes are gone, which the check of the complete file finds.
    assert!(sink.commit(full.verify(digest_of(&manifest(), block(0))).unwrap()).is_ok());
}

#[test]
fn failing_source_takes_nothing() {
    everywhere(|name, sink| {
        let mut lease = sink.lease(block(0)).unwrap();
        let mut broken = |_: &mut [u8]| Err(io::ErrorKind::ConnectionReset.into());
        assert!(matches!(lease.fill(&mut broken), Err(FillError::Source(_))), "{name}");
        assert_eq!(lease.remaining(), BLOCK, "{name}");
        assert_eq!(lease.fill(&mut |_| Ok(usize::MAX)).unwrap(), usize::try_from(BLOCK).unwrap(), "{name}");
    });
}

fn journal_in(folder: &tempfile::TempDir) -> Journal {
    let source_identity = journal::SourceIdentity {
        manifest: manifest(),
        modified: 0,
        version: SourceVersion([0; 16]),
        remote: [0; 32],
    };
    let part = journal::PartIdentity { device: 0, inode: 0 };
    Journal::create(&folder.path().join("out.dtjournal"), &source_identity, part).unwrap()
}

#[test]
fn block_is_recorded_once_it_is_verified_and_in_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal_in(&folder);
    let none = BlockSet::new(&manifest());
    let sink_of = |store: Arc<dyn Store>| {
        FileSink::new(manifest(), store, Some(journal.clone()), &none, Box::new(|| {})).unwrap()
    };
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(manifest().size()).unwrap();
    let read_only = File::open(file.path()).unwrap();
    let sink = sink_of(Arc::new(PwriteStore::of_unknown_size(read_only)));
    let mut lease = sink.lease(block(0)).unwrap();
    receive(&mut lease, &bytes_of(&manifest(), manifest().range(block(0))));
    lease.finish().unwrap_err();
    let scratch = verified(sink.lease_scratch(block(0)).unwrap());
    assert!(matches!(sink.commit(scratch), Err(CommitError::Store(_))));
    assert!(!journal.has_records());
    assert!(sink.lease(block(0)).is_some(), "it is free again");

    let sink = sink_of(open(file.as_file(), Engine::Write, manifest().size()).unwrap());
    let verified = verified(sink.lease(block(0)).unwrap());
    assert!(!journal.has_records(), "in its place, but not committed");
    sink.commit(verified).unwrap();
    assert!(journal.has_records());
}

#[test]
fn many_threads_receive_one_file() {
    everywhere(|name, sink| {
        let next = Mutex::new(manifest().blocks().chain(manifest().blocks()).collect::<Vec<_>>().into_iter());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while let Some(block) = { next.lock().unwrap().next() } {
                        let lease = sink.lease(block).unwrap_or_else(|| sink.lease_scratch(block).unwrap());
                        let mut result = sink.commit(verified(lease));
                        while let Err(CommitError::Occupied(verified)) = result {
                            std::thread::yield_now();
                            result = sink.commit(verified);
                        }
                        assert!(matches!(result, Ok(()) | Err(CommitError::AlreadyThere)), "{name}");
                    }
                });
            }
        });
        let all = ByteRange::new(0, manifest().size());
        assert_eq!(content(&*sink.store, all).unwrap(), bytes_of(&manifest(), all), "{name}");
    });
}

#[test]
fn buffered_bytes_are_bounded() {
    for (engine, block, most) in
        [(Engine::Write, 512 << 10, 256), (Engine::Write, 16 << 20, 8), (Engine::Map, 16 << 20, usize::MAX)]
    {
        let manifest = Manifest::new(10 * block, BlockSize::new(block).unwrap()).unwrap();
        let store = open(&tempfile::tempfile().unwrap(), engine, manifest.size()).unwrap();
        let sink = sink_of(manifest, store, &BlockSet::new(&manifest)).unwrap();
        assert_eq!(sink.most_at_once(), most, "{engine}, {block}");
        // Second copies take no more memory than that either.
        let copies: Vec<_> = manifest.blocks().map_while(|block| sink.lease_scratch(block)).collect();
        assert_eq!(copies.len(), usize::try_from(BUFFERS / block).unwrap().min(10), "{engine}, {block}");
    }
}
