//! Proofs against a peer that answers what the test wants.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{BLOCK, ReadyMade, Scene, connected, manifest_of, transfer};
use crate::digest::RangeDigest;
use crate::event;
use crate::failure::Failure;
use crate::proto::v2::{ErrorCode, FRAME_LEN, Growth, Request, Response, WireRun, encode_trailer};
use crate::receive::prove::prove;
use crate::receive::source::RangeStream;
use crate::receive::transfer::ActiveTransfer;
use crate::sink::{Outcome, Recovered};

/// The number of blocks in the longest run.
const LONGEST: u32 = 1024;

/// A transfer, of which all blocks are claimed.
type Claimed = (ActiveTransfer<ReadyMade>, Recovered);

/// Eight long runs.
fn claim() -> Claimed {
    let manifest = manifest_of(8 * u64::from(LONGEST) * BLOCK);
    let transfer = transfer(Scene { size: manifest.size(), streams: 1, ..Scene::default() });
    let mut claimed = Recovered::empty(&manifest, Outcome::Resumed);
    for block in manifest.blocks() {
        claimed.done.insert(block);
        claimed.digests[block.index()] = Some(RangeDigest([7; 32]));
    }
    claimed.bytes = manifest.size();
    (transfer, claimed)
}

/// Whether it is verified, and whether there is a stream on which nothing is unanswered.
async fn run(claim: &Claimed, cancel: &CancellationToken) -> Result<(bool, bool), Failure> {
    let (transfer, claimed) = claim;
    let (events, started) = (event::channel().0, Instant::now());
    let proving =
        prove(&transfer.source, &transfer.settings, &events, transfer.manifest, claimed, started, cancel);
    let (is_verified, opened) = proving.await?;
    let is_clean = opened.is_some_and(|opened| opened.stream.n_unanswered() == 0 && opened.pushed.is_none());
    Ok((is_verified, is_clean))
}

/// The other end of a connection that the source has made.
async fn peer((transfer, _): &Claimed) -> TcpStream {
    let (connection, peer) = connected().await;
    transfer.source.connections.lock().unwrap().push_back(connection);
    peer
}

async fn hello(peer: &mut TcpStream) {
    peer.read_exact(&mut [0; 5]).await.unwrap();
}

async fn request(peer: &mut TcpStream) -> Request {
    let mut bytes = [0; FRAME_LEN];
    peer.read_exact(&mut bytes).await.unwrap();
    Request::decode(&bytes).unwrap()
}

/// The long run with this number.
fn nth(run: u64) -> WireRun {
    WireRun { first: run * u64::from(LONGEST), count: LONGEST, length: u64::from(LONGEST) * BLOCK }
}

async fn requested(peer: &mut TcpStream, run: u64) {
    assert_eq!(request(peer).await, Request::Proof(nth(run)));
}

/// The digests of a long run, of which that of `other` is another one.
fn proof(run: u64, other: Option<u64>) -> Vec<u8> {
    let WireRun { first, count, .. } = nth(run);
    let digests: Vec<_> = (first..first + u64::from(count))
        .map(|block| RangeDigest([if other == Some(block) { 8 } else { 7 }; 32]))
        .collect();
    let trailer = encode_trailer(Ok(&digests), Growth::None, count);
    [&Response::Proof(nth(run)).encode()[..], &trailer].concat()
}

#[tokio::test]
async fn all_blocks_are_compared_a_few_runs_ahead() {
    let claim = claim();
    let mut peer = peer(&claim).await;
    let serving = async {
        hello(&mut peer).await;
        requested(&mut peer, 0).await;
        assert!(peer.try_read(&mut [0]).is_err(), "one at first");
        peer.write_all(&proof(0, None)).await.unwrap();
        for run in 1..5 {
            requested(&mut peer, run).await;
        }
        for run in 1..8 {
            peer.write_all(&proof(run, None)).await.unwrap();
            if run + 4 < 8 {
                requested(&mut peer, run + 4).await;
            }
        }
    };
    let cancel = CancellationToken::new();
    let (verified, ()) = tokio::join!(run(&claim, &cancel), serving);
    assert_eq!(verified.unwrap(), (true, true));
}

#[tokio::test]
async fn one_block_that_differs_refutes_all() {
    for other in [0, nth(2).first - 1] {
        let claim = claim();
        let mut peer = peer(&claim).await;
        let serving = async {
            hello(&mut peer).await;
            requested(&mut peer, 0).await;
            peer.write_all(&proof(0, Some(other))).await.unwrap();
            if other == 0 {
                return;
            }
            for run in 1..5 {
                requested(&mut peer, run).await;
            }
            for run in 1..5 {
                peer.write_all(&proof(run, Some(other))).await.unwrap();
            }
        };
        let cancel = CancellationToken::new();
        let (refuted, ()) = tokio::join!(run(&claim, &cancel), serving);
        assert_eq!(refuted.unwrap(), (false, true), "what was requested has arrived");
    }
}

#[tokio::test]
async fn proof_continues_on_another_connection() {
    let claim = claim();
    let (mut first, mut second) = (peer(&claim).await, peer(&claim).await);
    let serving = async {
        hello(&mut first).await;
        requested(&mut first, 0).await;
        first.write_all(&proof(0, None)).await.unwrap();
        requested(&mut first, 1).await;
        first.write_all(&proof(1, None)[..100]).await.unwrap();
        drop(first);
        hello(&mut second).await;
        for run in 1..5 {
            requested(&mut second, run).await;
        }
        for run in 1..8 {
            second.write_all(&proof(run, None)).await.unwrap();
        }
        second
    };
    let cancel = CancellationToken::new();
    let (verified, _second) = tokio::join!(run(&claim, &cancel), serving);
    assert_eq!(verified.unwrap(), (true, true));
}

#[tokio::test]
async fn sender_that_cannot_answer_ends_the_proof() {
    for code in [ErrorCode::SourceChanged, ErrorCode::SourceUnreadable] {
        let claim = claim();
        let mut peer = peer(&claim).await;
        let serving = async {
            hello(&mut peer).await;
            requested(&mut peer, 0).await;
            let trailer = encode_trailer(Err(code), Growth::None, LONGEST);
            peer.write_all(&[&Response::Proof(nth(0)).encode()[..], &trailer].concat()).await.unwrap();
        };
        let cancel = CancellationToken::new();
        let (failed, ()) = tokio::join!(run(&claim, &cancel), serving);
        let error = failed.unwrap_err();
        let is_change = matches!(error, Failure::SourceChanged { .. });
        assert!(is_change || matches!(error, Failure::Unreadable { .. }), "{error:?}");
        assert_eq!(is_change, code == ErrorCode::SourceChanged);
    }
}

#[tokio::test]
async fn sender_learns_of_a_cancelled_proof() {
    let claim = claim();
    let mut peer = peer(&claim).await;
    let cancel = CancellationToken::new();
    let serving = async {
        hello(&mut peer).await;
        requested(&mut peer, 0).await;
        cancel.cancel();
        assert_eq!(request(&mut peer).await, Request::Leave);
    };
    let (cancelled, ()) = tokio::join!(run(&claim, &cancel), serving);
    assert!(matches!(cancelled, Err(Failure::Cancelled)), "{cancelled:?}");
}

#[tokio::test]
async fn silent_sender_ends_the_proof() {
    let mut claim = claim();
    claim.0.settings.stall_timeout = Duration::from_millis(50);
    let peer = peer(&claim).await;
    let failed = run(&claim, &CancellationToken::new()).await;
    assert!(matches!(failed, Err(Failure::TimedOut { .. })), "{failed:?}");
    drop(peer);
}
