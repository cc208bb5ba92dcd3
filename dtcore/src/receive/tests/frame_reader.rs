//! Reads frames that arrive in all kinds of pieces.

use proptest::prelude::*;
use tokio::io::AsyncWriteExt;

use super::super::FrameReader;
use super::super::source::ReadInterrupt;
use super::super::wake::{Wake, Woken};
use super::connected;
use crate::digest::RangeDigest;
use crate::manifest::{BlockSet, BlockSize, Manifest};
use crate::sink::{Engine, FileSink, open};

const HEADER: [u8; 24] = [0xaa; 24];
const TRAILER: [u8; 40] = [0xbb; 40];
const NEXT: [u8; 24] = [0xcc; 24];
/// What follows the data: a trailer and the next header.
const FOLLOWS: usize = 64;

fn file_sink(manifest: Manifest, engine: Engine) -> FileSink {
    let store = open(&tempfile::tempfile().unwrap(), engine, manifest.size()).unwrap();
    FileSink::new(manifest, store, None, &BlockSet::new(&manifest), Box::new(|| {})).unwrap()
}

fn one_block(size: u64, block: u64) -> Manifest {
    Manifest::new(size, BlockSize::new(block).unwrap()).unwrap()
}

fn content(len: u64) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at * 31 % 251).unwrap()).collect()
}

/// A header, the file's only block, its trailer and the next header, received in steps of at most `limit` bytes.
async fn receive_frame(reader: &mut FrameReader, sink: &FileSink, manifest: Manifest, limit: usize) {
    let wake = Wake::default();
    reader.ensure(HEADER.len(), &wake).await.unwrap();
    assert_eq!(reader.take_array(), HEADER);
    let block = manifest.block(0).unwrap();
    let mut lease = sink.lease(block).unwrap();
    while lease.remaining() > 0 {
        let before = lease.remaining();
        let n = reader.receive(&mut lease, limit, FOLLOWS, &wake).await.unwrap();
        assert!(n <= limit);
        assert_eq!(lease.remaining(), before - u64::try_from(n).unwrap());
    }
    let expected =
        RangeDigest::of(manifest.size(), manifest.range(block), &content(manifest.size())).unwrap();
    lease.finish().unwrap().verify(expected).expect("the bytes of the block are in their place");
    reader.ensure(TRAILER.len(), &wake).await.unwrap();
    assert_eq!(reader.take_array(), TRAILER);
    reader.ensure(NEXT.len(), &wake).await.unwrap();
    assert_eq!(reader.take_array(), NEXT);
    assert!(reader.buffered().is_empty());
}

fn frame(manifest: Manifest) -> Vec<u8> {
    [&HEADER[..], &content(manifest.size()), &TRAILER, &NEXT].concat()
}

#[tokio::test]
async fn frame_may_arrive_in_two_parts_wherever_it_is_split() {
    let manifest = one_block(100, 1 << 14);
    let frame = frame(manifest);
    let (connection, mut peer) = connected().await;
    let mut reader = FrameReader::new(connection, Vec::new());
    for engine in [Engine::Map, Engine::Write] {
        for split in 0..=frame.len() {
            let sink = file_sink(manifest, engine);
            let (first, second) = frame.split_at(split);
            let sending = async {
                peer.write_all(first).await.unwrap();
                // The reader takes what there is, and waits.
                for _ in 0..4 {
                    tokio::task::yield_now().await;
                }
                peer.write_all(second).await.unwrap();
            };
            tokio::join!(receive_frame(&mut reader, &sink, manifest, usize::MAX), sending);
        }
    }
}

#[tokio::test]
async fn bytes_read_before_are_received_first() {
    let manifest = one_block(100, 1 << 14);
    let frame = frame(manifest);
    for split in 0..=frame.len() {
        let (connection, mut peer) = connected().await;
        let (early, late) = frame.split_at(split);
        let mut reader = FrameReader::new(connection, early.to_vec());
        let sink = file_sink(manifest, Engine::Write);
        let sending = async { peer.write_all(late).await.unwrap() };
        tokio::join!(receive_frame(&mut reader, &sink, manifest, 33), sending);
    }
}

/// A mapping takes its pages 4 MiB at a time, and offers no more than those.
#[tokio::test]
async fn block_that_is_offered_in_pieces_is_received_completely() {
    let manifest = one_block((9 << 20) + 5, 16 << 20);
    for engine in [Engine::Map, Engine::Write] {
        for limit in [usize::MAX, 1_000_000] {
            let (connection, mut peer) = connected().await;
            let mut reader = FrameReader::new(connection, Vec::new());
            let sink = file_sink(manifest, engine);
            let frame = frame(manifest);
            let sending = async { peer.write_all(&frame).await.unwrap() };
            tokio::join!(receive_frame(&mut reader, &sink, manifest, limit), sending);
        }
    }
}

#[tokio::test]
async fn trailer_and_header_arrive_with_the_last_data_and_nothing_beyond() {
    let manifest = one_block(100, 1 << 14);
    let (connection, mut peer) = connected().await;
    let mut reader = FrameReader::new(connection, Vec::new());
    let (wake, sink) = (Wake::default(), file_sink(manifest, Engine::Write));
    peer.write_all(&[&content(100)[..], &TRAILER, &NEXT, b"later"].concat()).await.unwrap();
    let mut lease = sink.lease(manifest.block(0).unwrap()).unwrap();
    assert_eq!(reader.receive(&mut lease, usize::MAX, FOLLOWS, &wake).await.unwrap(), 100);
    assert_eq!(reader.buffered().len(), FOLLOWS);
    assert_eq!((reader.take_array(), reader.take_array()), (TRAILER, NEXT));
    reader.ensure(5, &wake).await.unwrap();
    assert_eq!(reader.take(5), b"later");
}

#[tokio::test]
async fn discarded_data_ends_where_the_run_does() {
    let (connection, mut peer) = connected().await;
    let mut reader = FrameReader::new(connection, Vec::new());
    let wake = Wake::default();
    peer.write_all(&[&[0; 100][..], &TRAILER].concat()).await.unwrap();
    assert_eq!(reader.discard(100, 60, &wake).await.unwrap(), 60);
    assert_eq!(reader.discard(40, usize::MAX, &wake).await.unwrap(), 40);
    reader.ensure(TRAILER.len(), &wake).await.unwrap();
    assert_eq!(reader.take_array(), TRAILER);
}

#[tokio::test]
async fn signal_interrupts_a_wait_and_loses_nothing() {
    let (connection, mut peer) = connected().await;
    let mut reader = FrameReader::new(connection, Vec::new());
    let wake = Wake::default();
    peer.write_all(&TRAILER[..7]).await.unwrap();
    reader.ensure(7, &wake).await.unwrap();
    wake.wake();
    let interrupted = reader.ensure(TRAILER.len(), &wake).await;
    assert!(matches!(interrupted, Err(ReadInterrupt::Woken(Woken::Check))));
    peer.write_all(&TRAILER[7..]).await.unwrap();
    reader.ensure(TRAILER.len(), &wake).await.unwrap();
    assert_eq!(reader.take_array(), TRAILER);
    drop(peer);
    assert!(matches!(reader.ensure(1, &wake).await, Err(ReadInterrupt::Ended)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn frame_may_arrive_in_any_pieces(sizes in proptest::collection::vec(1..9000_usize, 1..40), limit in 1..20_000_usize) {
        let manifest = one_block(12_345, 1 << 14);
        let frame = frame(manifest);
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let (connection, mut peer) = connected().await;
            let mut reader = FrameReader::new(connection, Vec::new());
            let sink = file_sink(manifest, Engine::Map);
            let sending = async {
                let mut rest = frame.as_slice();
                for size in sizes {
                    let piece = rest.split_off(..size.min(rest.len())).unwrap();
                    peer.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
                peer.write_all(rest).await.unwrap();
            };
            tokio::join!(receive_frame(&mut reader, &sink, manifest, limit), sending);
        });
    }
}
