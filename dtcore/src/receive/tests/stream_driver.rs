//! Conversations with a peer that says what the test wants it to.

use std::time::Duration;

use futures_util::future::join;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{BLOCK, Scene, shared_of, stream};
use crate::digest::{Blake3Digest, RangeDigest};
use crate::error::TransferError;
use crate::manifest::{ByteRange, Manifest};
use crate::proto::v2::{
    Demand, ErrorCode, FRAME_LEN, HELLO_LEN, Hello, Replacing, Reply, TRAILER_LEN, Trailer, WholeDigestsReply,
};
use crate::receive::frame_reader::FrameReader;
use crate::receive::shared::Shared;
use crate::receive::stream_driver::{End, StreamDriver, Unheard};
use crate::schedule::Fault;

/// Longer than anything takes here; only a fault waits for it.
const LONG: Duration = Duration::from_secs(60);

async fn connected() -> (FrameReader, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let requester = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (FrameReader::new(requester), listener.accept().await.unwrap().0)
}

fn hello(number: u64) -> Hello {
    Hello {
        stream: stream(number).byte(),
        secret: [7; 16].into(),
        session: number.into(),
        replacing: Replacing::Nothing,
    }
}

async fn converse(shared: &Shared, number: u64, reader: FrameReader) -> End {
    let stream = stream(number);
    let line = shared.line(stream).unwrap();
    StreamDriver::new(shared, stream, line, reader, shared.access.way()).run(&hello(number), LONG).await
}

fn content(manifest: Manifest, block: u64) -> Vec<u8> {
    let range = manifest.range(manifest.block(block).unwrap());
    (range.start()..range.end()).map(|at| u8::try_from(at * 31 % 251).unwrap()).collect()
}

fn digest(manifest: Manifest, block: u64) -> RangeDigest {
    RangeDigest::of(
        manifest.size(),
        manifest.range(manifest.block(block).unwrap()),
        &content(manifest, block),
    )
    .unwrap()
}

/// A block's frame, whole.
fn data(manifest: Manifest, block: u64) -> Vec<u8> {
    let header = Reply::Data(manifest.range(manifest.block(block).unwrap())).encode();
    [&header[..], &content(manifest, block), &Trailer(Ok(digest(manifest, block))).encode()].concat()
}

fn digests(manifest: Manifest) -> Vec<u8> {
    let digests: Vec<_> = (0..u64::from(manifest.n_blocks())).map(|block| digest(manifest, block)).collect();
    WholeDigestsReply { blake3: Blake3Digest::of_blocks(&manifest, &digests).unwrap(), md5: None }.encode()
}

/// Reads the hello of a stream.
async fn greeted(peer: &mut TcpStream, number: u64) {
    let mut bytes = [0; HELLO_LEN];
    peer.read_exact(&mut bytes).await.unwrap();
    assert_eq!(bytes, hello(number).encode());
}

async fn demand(peer: &mut TcpStream) -> Demand {
    let mut bytes = [0; FRAME_LEN];
    peer.read_exact(&mut bytes).await.unwrap();
    Demand::decode(&bytes).unwrap()
}

/// A file of one small block, which one stream fetches.
fn small() -> Shared {
    shared_of(Scene { size: 100, streams: 1, ..Scene::default() })
}

#[tokio::test]
async fn answers_may_come_in_two_parts_wherever_they_are_split() {
    let manifest = small().manifest;
    let answers =
        [data(manifest, 0), Reply::Wait { hashed: 7 }.encode().to_vec(), digests(manifest)].concat();
    for split in 0..=answers.len() {
        let shared = small();
        let (reader, mut peer) = connected().await;
        let answering = async {
            greeted(&mut peer, 0).await;
            let (first, second) = answers.split_at(split);
            peer.write_all(first).await.unwrap();
            for _ in 0..4 {
                tokio::task::yield_now().await;
            }
            peer.write_all(second).await.unwrap();
            let (own, whole) = loop {
                match shared.outcome().unwrap() {
                    Some(outcome) => break outcome,
                    None => shared.ended().await,
                }
            };
            assert_eq!(own, whole.blake3);
            shared.accept(LONG).await;
            assert!(matches!(demand(&mut peer).await, Demand::Range(_)));
            assert!(matches!(demand(&mut peer).await, Demand::Digest(_)));
            assert_eq!(demand(&mut peer).await, Demand::End, "split at {split}");
        };
        let (end, ()) = join(converse(&shared, 0, reader), answering).await;
        assert!(matches!(end, End::Over), "{end:?}");
        assert_eq!(shared.account().2.wasted_bytes, 0);
    }
}

#[tokio::test]
async fn what_a_connection_brought_that_breaks_before_the_block_is_proven_is_wasted() {
    let shared = small();
    let frame = data(shared.manifest, 0);
    for cut in 0..frame.len() {
        let shared = small();
        let (reader, mut peer) = connected().await;
        let breaking = async {
            greeted(&mut peer, 0).await;
            for _ in 0..2 {
                demand(&mut peer).await;
            }
            peer.write_all(&frame[..cut]).await.unwrap();
            drop(peer);
        };
        let (end, ()) = join(converse(&shared, 0, reader), breaking).await;
        let expected = if cut < FRAME_LEN { "Unheard(Lost(" } else { "Lost(" };
        let end = format!("{end:?}");
        assert!(end.starts_with(expected), "{end} after {cut} bytes");
        let came = u64::try_from(cut.saturating_sub(FRAME_LEN)).unwrap().min(100);
        assert_eq!(shared.account().2.wasted_bytes, came, "after {cut} of {} bytes", frame.len());
        assert!(shared.blocks.lease(shared.manifest.block(0).unwrap()).is_some(), "its place is free");
    }
    assert_eq!(frame.len(), FRAME_LEN + 100 + TRAILER_LEN);
}

#[tokio::test]
async fn every_session_is_told_that_all_has_come_and_not_before_it_is_accepted() {
    let shared = shared_of(Scene { size: 2 * BLOCK, streams: 2, ..Scene::default() });
    let manifest = shared.manifest;
    let [(one, mut peer_one), (two, mut peer_two)] = [connected().await, connected().await];
    let answering = async {
        greeted(&mut peer_one, 0).await;
        greeted(&mut peer_two, 1).await;
        // The digests come before the last block does.
        let mut asked = [Vec::new(), Vec::new()];
        for (asked, peer) in asked.iter_mut().zip([&mut peer_one, &mut peer_two]) {
            let Demand::Range(range) = demand(peer).await else { panic!("no range") };
            asked.push(range.start() / BLOCK);
        }
        assert!(matches!(demand(&mut peer_two).await, Demand::Digest(_)));
        peer_two.write_all(&[data(manifest, asked[1][0]), digests(manifest)].concat()).await.unwrap();
        while shared.account().0 < BLOCK {
            tokio::task::yield_now().await;
        }
        peer_one.write_all(&data(manifest, asked[0][0])).await.unwrap();
        while shared.outcome().unwrap().is_none() {
            shared.ended().await;
        }
        // Whoever looks up now has nothing to say yet.
        shared.watch(shared.now()).unwrap();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        for peer in [&peer_one, &peer_two] {
            let error = peer.try_read(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "nothing is said before it is right");
        }
        shared.accept(LONG).await;
        for mut peer in [peer_one, peer_two] {
            assert_eq!(demand(&mut peer).await, Demand::End);
            assert_eq!(peer.read(&mut [0]).await.unwrap(), 0);
        }
    };
    let talking = join(converse(&shared, 0, one), converse(&shared, 1, two));
    let (ends, ()) = join(talking, answering).await;
    assert!(matches!(ends, (End::Over, End::Over)), "{ends:?}");
}

#[tokio::test]
async fn nobody_waits_for_a_second_copy_that_is_under_way_when_all_has_come() {
    for cut in [FRAME_LEN + 10, FRAME_LEN + 100, FRAME_LEN + 100 + 7] {
        let shared = small();
        let frame = data(shared.manifest, 0);
        let (reader, mut peer) = connected().await;
        let answering = async {
            greeted(&mut peer, 0).await;
            peer.write_all(&frame[..cut]).await.unwrap();
            while shared.account().0 == 0 {
                tokio::task::yield_now().await;
            }
            shared.accept(LONG).await;
            for _ in 0..2 {
                demand(&mut peer).await;
            }
            assert_eq!(demand(&mut peer).await, Demand::End);
        };
        let (end, ()) = join(converse(&shared, 0, reader), answering).await;
        assert!(matches!(end, End::Over), "{end:?}");
    }
}

#[tokio::test]
async fn a_transfer_that_fails_is_not_over_for_the_server() {
    let shared = small();
    let (reader, mut peer) = connected().await;
    let failing = async {
        greeted(&mut peer, 0).await;
        for _ in 0..2 {
            demand(&mut peer).await;
        }
        shared.fail(TransferError::Cancelled);
        shared.line(stream(0)).unwrap().wake();
        assert_eq!(peer.read(&mut [0]).await.unwrap(), 0, "it is closed without a word");
    };
    let (end, ()) = join(converse(&shared, 0, reader), failing).await;
    assert!(matches!(end, End::Over), "{end:?}");
}

#[tokio::test]
async fn what_is_no_answer_to_what_was_asked_ends_the_transfer_or_the_connection() {
    let manifest = small().manifest;
    let half = Reply::Data(ByteRange::new(0, 64)).encode().to_vec();
    let useless = |code| {
        let header = Reply::Data(manifest.range(manifest.block(0).unwrap())).encode();
        [&header[..], &[0; 100], &Trailer(Err(code)).encode()].concat()
    };
    for (answer, expected) in [
        (half, "Failed(Protocol"),
        (vec![0xff; FRAME_LEN], "Unheard(Failed(Protocol"),
        (Reply::Wait { hashed: 0 }.encode().to_vec(), "Failed(Protocol"),
        (useless(ErrorCode::SourceChanged), "Failed(SourceChanged"),
        (useless(ErrorCode::SourceUnreadable), "Failed(Unreadable"),
        (Reply::Drain.encode().to_vec(), "Lost("),
        (Reply::refusal(ErrorCode::NoSuchSession, "gone"), "NoSuchSession"),
        (
            Reply::refusal(ErrorCode::Busy, "full"),
            "Lost(Lost { reason: Custom { kind: Other, error: \"the server refused it: full",
        ),
    ] {
        let shared = small();
        let (reader, mut peer) = connected().await;
        let answering = async {
            greeted(&mut peer, 0).await;
            peer.write_all(&answer).await.unwrap();
        };
        let (end, ()) = join(converse(&shared, 0, reader), answering).await;
        let end = format!("{end:?}");
        assert!(end.starts_with(expected), "{end} is not {expected}");
        assert!(shared.blocks.lease(shared.manifest.block(0).unwrap()).is_some(), "its place is free");
    }
}

/// A stream that is to hear something within a tenth of a second.
fn impatient() -> Shared {
    let stall_timeout = Duration::from_millis(300);
    shared_of(Scene { size: 100, streams: 1, stall_timeout, ..Scene::default() })
}

#[tokio::test]
async fn the_first_frame_is_not_waited_for_where_nobody_was_answered() {
    for said in [&b""[..], b"SSH-2.0-OpenSSH\r\n"] {
        let shared = impatient();
        let (reader, mut peer) = connected().await;
        peer.write_all(said).await.unwrap();
        let end = converse(&shared, 0, reader).await;
        assert!(matches!(end, End::Unheard(Unheard::Replaced(Fault::Stalled))), "{end:?}");
    }
}

#[tokio::test]
async fn the_first_frame_is_waited_for_where_another_stream_was_answered() {
    let shared = impatient();
    let (reader, mut peer) = connected().await;
    let answering = async {
        // The other one already waits.
        shared.access.got_through(shared.access.way());
        greeted(&mut peer, 0).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        peer.write_all(&data(shared.manifest, 0)).await.unwrap();
        while shared.account().0 < 100 {
            tokio::task::yield_now().await;
        }
        drop(peer);
    };
    let (end, ()) = join(converse(&shared, 0, reader), answering).await;
    assert!(matches!(end, End::Lost(_)), "{end:?}");
}
