//! What becomes of verified copies of one block.

use std::io;

use super::{BLOCK, ReadyMade, Scene, stream, transfer};
use crate::digest::RangeDigest;
use crate::failure::Failure;
use crate::manifest::BlockId;
use crate::receive::transfer::ActiveTransfer;
use crate::sink::{BlockLease, Verified};

fn block(transfer: &ActiveTransfer<ReadyMade>) -> BlockId {
    transfer.manifest.block(0).unwrap()
}

/// The block, with `byte` in every place, and the digest that matches.
fn verified(transfer: &ActiveTransfer<ReadyMade>, mut lease: BlockLease, byte: u8) -> Verified {
    let range = transfer.manifest.range(block(transfer));
    let bytes = vec![byte; usize::try_from(range.len()).unwrap()];
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        lease.fill(&mut |space| io::Read::read(&mut rest, space)).unwrap();
    }
    let digest = RangeDigest::of(transfer.manifest.size(), range, &bytes).unwrap();
    lease.finish().unwrap().verify(digest).unwrap()
}

/// Copies of the block in its place and beside it.
fn copies(transfer: &ActiveTransfer<ReadyMade>, bytes: [u8; 2]) -> [Verified; 2] {
    let own = transfer.sink.lease(block(transfer)).unwrap();
    let scratch = transfer.sink.lease_scratch(block(transfer)).unwrap();
    [verified(transfer, own, bytes[0]), verified(transfer, scratch, bytes[1])]
}

fn wasted(transfer: &ActiveTransfer<ReadyMade>) -> u64 {
    transfer.counters.recovery().wasted_bytes
}

#[tokio::test]
async fn copies_with_different_digests_mean_a_changed_source() {
    let shared = transfer(Scene::default());
    let [own, scratch] = copies(&shared, [1, 2]);
    let digest = own.digest();
    shared.store(stream(0), own).await.unwrap();
    let error = shared.store(stream(1), scratch).await.unwrap_err();
    assert!(matches!(error, Failure::SourceChanged { .. }), "{error}");
    assert_eq!(shared.block_digests()[0], Some(digest));

    let shared = transfer(Scene::default());
    let [own, scratch] = copies(&shared, [1, 2]);
    let (digest, waiting) = (scratch.digest(), shared.store(stream(1), scratch));
    tokio::pin!(waiting);
    assert!(futures_util::poll!(waiting.as_mut()).is_pending(), "its place is taken");
    let error = shared.store(stream(0), own).await.unwrap_err();
    assert!(matches!(error, Failure::SourceChanged { .. }), "{error}");
    // The copy that was verified first gets the place, which the dropped one has freed.
    waiting.await.unwrap();
    assert_eq!(shared.block_digests()[0], Some(digest));
}

#[tokio::test]
async fn copy_that_finds_its_block_there_is_wasted() {
    let shared = transfer(Scene::default());
    let [own, scratch] = copies(&shared, [1, 1]);
    // The first stream has put its copy into its place and not reported it yet.
    shared.sink.commit(own).unwrap();
    shared.store(stream(1), scratch).await.unwrap();
    assert_eq!(wasted(&shared), BLOCK);
    assert!(!shared.is_wanted(block(&shared)));
}

#[tokio::test]
async fn second_of_two_equal_copies_is_wasted() {
    for is_own_first in [true, false] {
        let shared = transfer(Scene::default());
        let [own, scratch] = copies(&shared, [1, 1]);
        let digest = own.digest();
        if is_own_first {
            shared.store(stream(0), own).await.unwrap();
            shared.store(stream(1), scratch).await.unwrap();
        } else {
            let waiting = shared.store(stream(1), scratch);
            tokio::pin!(waiting);
            assert!(futures_util::poll!(waiting.as_mut()).is_pending());
            shared.store(stream(0), own).await.unwrap();
            waiting.await.unwrap();
        }
        assert_eq!(shared.block_digests()[0], Some(digest));
        assert_eq!((wasted(&shared), shared.verified_bytes()), (BLOCK, BLOCK));
    }
}

#[tokio::test]
async fn dropped_lease_wakes_who_waits_for_its_place() {
    let shared = transfer(Scene::default());
    let own = shared.sink.lease(block(&shared)).unwrap();
    let scratch = verified(&shared, shared.sink.lease_scratch(block(&shared)).unwrap(), 1);
    let waiting = shared.store(stream(1), scratch);
    tokio::pin!(waiting);
    assert!(futures_util::poll!(waiting.as_mut()).is_pending());
    drop(own);
    waiting.await.unwrap();
    assert_eq!(shared.verified_bytes(), BLOCK);
}
