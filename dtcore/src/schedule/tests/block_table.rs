//! The states of blocks, without streams.

use crate::digest::RangeDigest;
use crate::manifest::{BlockId, BlockSet, BlockSize, Manifest, StreamCount, StreamId};
use crate::schedule::VerifiedCopy;
use crate::schedule::block_table::{Assignment, BlockTable, Released};

const LEN: u64 = 16 << 10;

fn manifest() -> Manifest {
    Manifest::new(6 * LEN - 1, BlockSize::new(LEN).unwrap()).unwrap()
}

fn block(number: u64) -> BlockId {
    manifest().block(number).unwrap()
}

fn stream(id: u8) -> StreamId {
    StreamCount::new(8).unwrap().stream(id).unwrap()
}

fn digest(byte: u8) -> RangeDigest {
    RangeDigest([byte; 32])
}

fn table(done: &[u64]) -> BlockTable {
    let mut set = BlockSet::new(&manifest());
    for number in done {
        set.insert(block(*number));
    }
    BlockTable::new(manifest(), set, vec![])
}

fn first_run(table: &BlockTable, max_len: u64, max_blocks: usize) -> Option<(u32, u32)> {
    let run = table.first_unassigned_run(u64::MAX, Some(stream(1)), max_len, max_blocks)?;
    Some((run.first.value(), run.count))
}

#[test]
fn blocks_are_assigned_in_order_and_returned_ones_first() {
    let mut table = table(&[1, 2]);
    let take = |table: &mut BlockTable, run_end| {
        let first = table.first_unassigned(u64::MAX, None).unwrap();
        assert!(!table.assign(first, Assignment { stream: stream(0), run_end }));
        first
    };
    assert_eq!(table.missing(), 4 * LEN - 1);
    for (at, number) in [(0, 0), (1, 3), (2, 4)] {
        assert_eq!(take(&mut table, at), block(number));
    }
    assert_eq!(table.release(stream(0), block(3)), Released::Returned);
    assert_eq!(table.release(stream(0), block(0)), Released::Returned);
    for number in [0, 3, 5] {
        assert_eq!(take(&mut table, 9), block(number));
    }
    assert_eq!((table.first_unassigned(u64::MAX, None), table.unassigned()), (None, 0));
}

#[test]
fn run_ends_at_the_first_block_that_cannot_be_assigned() {
    for (done, max_len, max_blocks, run) in [
        (&[][..], u64::MAX, 9, Some((0, 6))),
        (&[], 6 * LEN - 1, 9, Some((0, 6))),
        (&[], 6 * LEN - 2, 9, Some((0, 5))),
        (&[], 3 * LEN, 9, Some((0, 3))),
        (&[], u64::MAX, 2, Some((0, 2))),
        (&[], 0, 9, Some((0, 1))),
        (&[0, 3], u64::MAX, 9, Some((1, 2))),
        (&[0, 1, 2, 3, 4], u64::MAX, 9, Some((5, 1))),
        (&[0, 1, 2, 3, 4, 5], u64::MAX, 9, None),
    ] {
        assert_eq!(first_run(&table(done), max_len, max_blocks), run, "{done:?} {max_len} {max_blocks}");
    }
    let mut table = table(&[]);
    for number in 0..4 {
        table.assign(block(number), Assignment { stream: stream(0), run_end: 1 });
    }
    // Returned blocks are followed by those that were never assigned.
    for (number, run) in [(0, (0, 1)), (1, (0, 2)), (3, (0, 2))] {
        table.release(stream(0), block(number));
        assert_eq!(first_run(&table, u64::MAX, 9), Some(run));
    }
    table.record_corruption(stream(1), block(0));
    assert_eq!(first_run(&table, u64::MAX, 9), Some((1, 1)));
    table.release(stream(0), block(2));
    assert_eq!(first_run(&table, u64::MAX, 9), Some((1, 5)));
    table.record_corruption(stream(1), block(3));
    assert_eq!(first_run(&table, u64::MAX, 9), Some((1, 2)));
}

#[test]
fn run_begins_every_block_before_the_limit() {
    let table = table(&[]);
    for (limit, count) in [(0, None), (1, Some(1)), (LEN, Some(1)), (LEN + 1, Some(2)), (9 * LEN, Some(6))] {
        let run = table.first_unassigned_run(limit, None, u64::MAX, 9);
        assert_eq!(run.map(|run| run.count), count, "{limit}");
    }
}

#[test]
fn blocks_before_an_assigned_one_are_not_forgotten() {
    let mut table = table(&[1]);
    table.assign(block(3), Assignment { stream: stream(0), run_end: 1 });
    for run in [(0, 1), (2, 1), (4, 2)] {
        assert_eq!(first_run(&table, u64::MAX, 9), Some(run));
        for number in run.0..run.0 + run.1 {
            table.assign(block(u64::from(number)), Assignment { stream: stream(0), run_end: 1 });
        }
    }
    assert_eq!((table.first_unassigned(u64::MAX, None), table.unassigned()), (None, 0));
}

#[test]
fn frontier_is_the_first_missing_byte() {
    let mut table = table(&[1]);
    for (verified, frontier) in [(2, 0), (0, 3 * LEN), (4, 3 * LEN), (3, 5 * LEN), (5, 6 * LEN - 1)] {
        assert_eq!(table.verify(stream(0), block(verified)), VerifiedCopy::First { also_assigned_to: None });
        assert_eq!(table.frontier(), frontier);
    }
    assert_eq!((table.missing(), table.unassigned(), table.verified().is_full()), (0, 0, true));
}

#[test]
fn block_on_two_streams_stays_with_the_one_that_keeps_it() {
    let mut table = table(&[]);
    let (one, two) =
        (Assignment { stream: stream(1), run_end: 5 }, Assignment { stream: stream(2), run_end: 7 });
    assert!(!table.assign(block(0), one));
    assert_eq!(table.first_assigned_once(1), Some((block(0), one)));
    assert!(table.assign(block(0), two));
    assert_eq!((table.sole_assignment(block(0)), table.first_assigned_once(6)), (None, None));
    assert_eq!(table.release(stream(3), block(0)), Released::NotAssigned);
    assert_eq!(table.release(stream(1), block(0)), Released::StillAssigned(two));
    assert!(table.assign(block(0), one));
    assert_eq!(table.verify(stream(2), block(0)), VerifiedCopy::First { also_assigned_to: Some(stream(1)) });
    assert_eq!(table.verify(stream(1), block(0)), VerifiedCopy::Duplicate);
    assert_eq!(table.release(stream(1), block(0)), Released::NotAssigned);
}

#[test]
fn corrupted_block_is_skipped_for_the_stream_that_corrupted_it() {
    let mut table = table(&[]);
    table.assign(block(0), Assignment { stream: stream(1), run_end: 1 });
    assert_eq!(table.record_corruption(stream(1), block(0)), 1);
    assert_eq!(table.release(stream(1), block(0)), Released::Returned);
    assert_eq!(table.first_unassigned(u64::MAX, Some(stream(1))), Some(block(1)));
    assert_eq!(table.first_unassigned(u64::MAX, Some(stream(2))), Some(block(0)));
    assert_eq!(table.first_unassigned(u64::MAX, None), Some(block(0)));
    assert_eq!(table.first_unassigned(LEN, Some(stream(1))), None);
    assert_eq!(table.record_corruption(stream(2), block(0)), 2);
}

#[test]
fn first_proof_of_a_block_is_kept_and_another_is_a_conflict() {
    let mut table = table(&[]);
    assert!(table.is_wanted(block(0)));
    assert!(table.record_proof(block(0), digest(1)));
    assert!(!table.is_wanted(block(0)));
    assert_eq!((table.missing(), table.frontier()), (6 * LEN - 1, 0));
    assert!(table.record_proof(block(0), digest(1)));
    assert!(!table.record_proof(block(0), digest(2)));
    assert!(table.record_proof(block(1), digest(2)));
    table.verify(stream(0), block(0));
    assert!(!table.record_proof(block(0), digest(2)));
    assert_eq!(table.digests(), [Some(digest(1)), Some(digest(2)), None, None, None, None]);
}

#[test]
fn verified_block_is_not_wanted_even_without_a_proof() {
    let mut table = table(&[2]);
    table.verify(stream(0), block(0));
    let wanted: Vec<_> = manifest().blocks().filter(|block| table.is_wanted(*block)).collect();
    assert_eq!(wanted, [1, 3, 4, 5].map(block));
}

#[test]
fn block_that_is_being_stored_is_not_hedged() {
    let mut table = table(&[]);
    let assignment = Assignment { stream: stream(0), run_end: 1 };
    table.assign(block(0), assignment);
    table.assign(block(1), assignment);
    assert!(table.record_proof(block(0), digest(1)));
    assert_eq!(table.sole_assignment(block(0)), None);
    assert_eq!(table.first_assigned_once(6), Some((block(1), assignment)));
}

#[test]
fn only_digests_of_resumed_blocks_are_taken_over() {
    let mut done = BlockSet::new(&manifest());
    done.insert(block(1));
    done.insert(block(5));
    let table = BlockTable::new(manifest(), done, vec![Some(digest(1)), Some(digest(2)), None]);
    assert_eq!(table.digests(), [None, Some(digest(2)), None, None, None, None]);
    assert!(table.is_wanted(block(0)) && !table.is_wanted(block(1)) && !table.is_wanted(block(5)));
}
