//! Connections to a peer that sends what the test wants.

use std::time::Duration;

use futures_util::future::join;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{
    BLOCK, LONG, ReadyMade, Scene, connected, content, data, digest, file_digests, header, stream, transfer,
};
use crate::failure::Failure;
use crate::manifest::BlockRun;
use crate::proto::v2::{
    ErrorCode, FRAME_LEN, Growth, Request, Response, TRAILER_LEN, WireRun, encode_trailer,
};
use crate::receive::stream_driver::StreamDriver;
use crate::receive::stream_outcome::StreamOutcome;
use crate::receive::supervise::outcome;
use crate::receive::transfer::ActiveTransfer;
use crate::receive::{DtStream, EndNotice, FrameReader};
use crate::transport::Connection;

async fn drive(transfer: &ActiveTransfer<ReadyMade>, number: u64, connection: Connection) -> StreamOutcome {
    drive_with(transfer, number, connection, None).await
}

async fn drive_with(
    transfer: &ActiveTransfer<ReadyMade>,
    number: u64,
    connection: Connection,
    pushed: Option<BlockRun>,
) -> StreamOutcome {
    let id = stream(number);
    let wake = transfer.streams.wake_of(id).unwrap();
    let reader = FrameReader::new(connection, Vec::new());
    let stream = match pushed {
        Some(run) => DtStream::after_offer(reader, transfer.manifest, Some(run)),
        None => DtStream::new(reader, transfer.manifest, &[]),
    };
    StreamDriver::new(transfer, id, wake, stream).run(Duration::from_millis(1), pushed).await
}

async fn request(peer: &mut TcpStream) -> Request {
    let mut bytes = [0; FRAME_LEN];
    peer.read_exact(&mut bytes).await.unwrap();
    Request::decode(&bytes).unwrap()
}

/// A file of one small block, which one stream fetches.
fn small() -> ActiveTransfer<ReadyMade> {
    transfer(Scene { size: 100, streams: 1, ..Scene::default() })
}

/// Waits until the transfer is complete, and has the sender notified.
async fn accepted(transfer: &ActiveTransfer<ReadyMade>) {
    while outcome(transfer).unwrap().is_none() {
        transfer.completion.changed().await;
    }
    transfer.completion.end(EndNotice::Complete);
    transfer.streams.wake_all();
    transfer.streams.all_closed(LONG).await;
}

#[tokio::test]
async fn responses_may_arrive_in_two_parts_wherever_they_are_split() {
    let manifest = small().manifest;
    let responses =
        [data(manifest, 0, 1), Response::Wait { hashed: 7 }.encode().to_vec(), file_digests(manifest)];
    let responses = responses.concat();
    for split in 0..=responses.len() {
        let transfer = small();
        let (connection, mut peer) = connected().await;
        let responding = async {
            assert!(matches!(
                request(&mut peer).await,
                Request::Run(WireRun { first: 0, count: 1, length: 100 })
            ));
            assert!(matches!(request(&mut peer).await, Request::Digest(_)));
            let (first, second) = responses.split_at(split);
            peer.write_all(first).await.unwrap();
            for _ in 0..4 {
                tokio::task::yield_now().await;
            }
            peer.write_all(second).await.unwrap();
            accepted(&transfer).await;
            assert_eq!(request(&mut peer).await, Request::End, "split at {split}");
        };
        let (end, ()) = join(drive(&transfer, 0, connection), responding).await;
        assert!(matches!(end, StreamOutcome::Over), "{end:?}");
        assert_eq!(transfer.counters.recovery().wasted_bytes, 0);
    }
}

#[tokio::test]
async fn pushed_run_of_all_blocks_needs_no_request() {
    let transfer = transfer(Scene { size: 3 * BLOCK + 1, is_one_run: true, ..Scene::default() });
    let manifest = transfer.manifest;
    let (connection, mut peer) = connected().await;
    let responding = async {
        peer.write_all(&data(manifest, 0, 4)).await.unwrap();
        accepted(&transfer).await;
        assert_eq!(request(&mut peer).await, Request::End, "nothing was requested before");
    };
    let (end, ()) = join(drive_with(&transfer, 0, connection, manifest.run(0, 4)), responding).await;
    assert!(matches!(end, StreamOutcome::Over), "{end:?}");
}

#[tokio::test]
async fn digests_are_accepted_between_runs() {
    let transfer = transfer(Scene { size: 3 * BLOCK, streams: 1, ..Scene::default() });
    let manifest = transfer.manifest;
    let (connection, mut peer) = connected().await;
    let responding = async {
        let mut runs = Vec::new();
        while let Request::Run(WireRun { first, count, .. }) = request(&mut peer).await {
            runs.push((first, count));
        }
        peer.write_all(&file_digests(manifest)).await.unwrap();
        for (first, count) in runs {
            peer.write_all(&data(manifest, first, count)).await.unwrap();
        }
        accepted(&transfer).await;
        assert_eq!(request(&mut peer).await, Request::End);
    };
    let (end, ()) = join(drive(&transfer, 0, connection), responding).await;
    assert!(matches!(end, StreamOutcome::Over), "{end:?}");
}

#[tokio::test]
async fn only_the_damaged_block_of_a_run_is_requested_again() {
    let transfer = transfer(Scene { size: 4 * BLOCK, is_one_run: true, ..Scene::default() });
    let manifest = transfer.manifest;
    let run = manifest.run(0, 4).unwrap();
    let (connection, mut peer) = connected().await;
    let responding = async {
        let mut damaged = data(manifest, 0, 4);
        damaged[FRAME_LEN + 2 * usize::try_from(BLOCK).unwrap() + 5] ^= 1;
        peer.write_all(&damaged).await.unwrap();
        let expected = WireRun { first: 2, count: 1, length: BLOCK };
        assert_eq!(request(&mut peer).await, Request::Run(expected));
        // The blocks are not of one run any more.
        assert!(matches!(request(&mut peer).await, Request::Digest(_)));
        peer.write_all(&[data(manifest, 2, 1), file_digests(manifest)].concat()).await.unwrap();
        accepted(&transfer).await;
        assert_eq!(request(&mut peer).await, Request::End);
    };
    let (end, ()) = join(drive_with(&transfer, 0, connection, Some(run)), responding).await;
    assert!(matches!(end, StreamOutcome::Over), "{end:?}");
    let recovery = transfer.counters.recovery();
    assert_eq!((recovery.repaired_blocks, recovery.wasted_bytes), (1, BLOCK));
}

#[tokio::test]
async fn connection_that_breaks_before_the_trailer_has_wasted_its_data() {
    let frame = data(small().manifest, 0, 1);
    for cut in 0..frame.len() {
        let transfer = small();
        let (connection, mut peer) = connected().await;
        let breaking = async {
            for _ in 0..2 {
                request(&mut peer).await;
            }
            peer.write_all(&frame[..cut]).await.unwrap();
            drop(peer);
        };
        let (end, ()) = join(drive(&transfer, 0, connection), breaking).await;
        assert!(matches!(end, StreamOutcome::Lost(_)), "{end:?} after {cut} bytes");
        let wasted = u64::try_from(cut.saturating_sub(FRAME_LEN)).unwrap().min(100);
        assert_eq!(transfer.counters.recovery().wasted_bytes, wasted, "after {cut} bytes");
        assert!(transfer.sink.lease(transfer.manifest.block(0).unwrap()).is_some(), "its place is free");
    }
    assert_eq!(frame.len(), FRAME_LEN + 100 + TRAILER_LEN + 32);
}

#[tokio::test]
async fn every_stream_reports_the_end_and_none_before_it_is_accepted() {
    let transfer = transfer(Scene { size: 2 * BLOCK, streams: 2, ..Scene::default() });
    let manifest = transfer.manifest;
    let [(one, mut peer_one), (two, mut peer_two)] = [connected().await, connected().await];
    let responding = async {
        let mut firsts = Vec::new();
        for peer in [&mut peer_one, &mut peer_two] {
            let Request::Run(WireRun { first, count: 1, .. }) = request(peer).await else { panic!("no run") };
            firsts.push(first);
        }
        assert!(matches!(request(&mut peer_two).await, Request::Digest(_)));
        peer_two.write_all(&[data(manifest, firsts[1], 1), file_digests(manifest)].concat()).await.unwrap();
        while transfer.counters.received() < BLOCK {
            tokio::task::yield_now().await;
        }
        peer_one.write_all(&data(manifest, firsts[0], 1)).await.unwrap();
        while outcome(&transfer).unwrap().is_none() {
            transfer.completion.changed().await;
        }
        transfer.streams.wake_all();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        for peer in [&peer_one, &peer_two] {
            let error = peer.try_read(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "nothing is sent before all matches");
        }
        transfer.completion.check();
        accepted(&transfer).await;
        for mut peer in [peer_one, peer_two] {
            assert_eq!(request(&mut peer).await, Request::End);
            assert_eq!(peer.read(&mut [0]).await.unwrap(), 0);
        }
    };
    let driving = join(drive(&transfer, 0, one), drive(&transfer, 1, two));
    let (ends, ()) = join(driving, responding).await;
    assert!(matches!(ends, (StreamOutcome::Over, StreamOutcome::Over)), "{ends:?}");
}

#[tokio::test]
async fn response_under_way_is_not_awaited_when_the_transfer_is_over() {
    for cut in [FRAME_LEN + 10, FRAME_LEN + 100, FRAME_LEN + 100 + 7] {
        let transfer = small();
        let frame = data(transfer.manifest, 0, 1);
        let (connection, mut peer) = connected().await;
        let responding = async {
            peer.write_all(&frame[..cut]).await.unwrap();
            while transfer.counters.received() == 0 {
                tokio::task::yield_now().await;
            }
            transfer.completion.end(EndNotice::Complete);
            transfer.streams.wake_all();
            for _ in 0..2 {
                request(&mut peer).await;
            }
            assert_eq!(request(&mut peer).await, Request::End);
        };
        let (end, ()) = join(drive(&transfer, 0, connection), responding).await;
        assert!(matches!(end, StreamOutcome::Over), "{end:?}");
    }
}

#[tokio::test]
async fn failed_transfer_says_that_it_leaves() {
    let transfer = small();
    let (connection, mut peer) = connected().await;
    let failing = async {
        for _ in 0..2 {
            request(&mut peer).await;
        }
        transfer.completion.fail(Failure::Cancelled);
        transfer.streams.wake_all();
        assert_eq!(request(&mut peer).await, Request::Leave);
        let error = peer.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    };
    let (end, ()) = join(drive(&transfer, 0, connection), failing).await;
    assert!(matches!(end, StreamOutcome::Over), "{end:?}");
}

#[tokio::test]
async fn unexpected_response_ends_the_connection_or_the_transfer() {
    let manifest = small().manifest;
    let run = manifest.run(0, 1).unwrap();
    let useless =
        |code| [&header(manifest, run)[..], &[0; 100], &encode_trailer(Err(code), Growth::None, 1)].concat();
    let other_count = [
        &header(manifest, run)[..],
        &content(manifest, 0),
        &encode_trailer(Ok(&[digest(manifest, 0); 2]), Growth::None, 2),
    ];
    let refusal = |code, reason| Response::refusal(code, reason);
    for (response, expected) in [
        (
            Response::Data(WireRun { first: 0, count: 1, length: 64 }).encode().to_vec(),
            "Violation(\"response to",
        ),
        (vec![0xff; FRAME_LEN], "Violation(\"invalid frame"),
        (Response::Offer(9).encode().to_vec(), "Violation(\"response to"),
        (other_count.concat(), "Violation(\"invalid frame"),
        (useless(ErrorCode::SourceChanged), "Failed(SourceChanged"),
        (useless(ErrorCode::SourceUnreadable), "Failed(Unreadable"),
        (Response::Drain.encode().to_vec(), "Lost("),
        (refusal(ErrorCode::NoSuchSession, "gone"), "NoSuchSession"),
        (refusal(ErrorCode::ProtocolViolation, "bad"), "Violation(\"the server reports a violation: bad"),
        (
            refusal(ErrorCode::Busy, "full"),
            "Lost(Lost { reason: Custom { kind: Other, error: \"rejected by the server: full",
        ),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "AnsweredByHttp"),
    ] {
        let transfer = small();
        let (connection, mut peer) = connected().await;
        let responding = async { peer.write_all(&response).await.unwrap() };
        let (end, ()) = join(drive(&transfer, 0, connection), responding).await;
        let end = format!("{end:?}");
        assert!(end.starts_with(expected), "{end} is not {expected}");
        assert!(transfer.sink.lease(transfer.manifest.block(0).unwrap()).is_some(), "its place is free");
    }
}
