//! Sources that change, and receivers that request what cannot be sent.

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::time::SystemTime;

use tokio::net::TcpSocket;

use super::*;
use crate::backend::Object;
use crate::backend::fs::SourceFile;

#[tokio::test]
async fn file_that_grew_has_changed() {
    let mut served = Served::start().await;
    let path = served.file("f", &content(100_000));
    let offer = served.session("f", 1).await;
    std::fs::File::options().append(true).open(&path).unwrap().write_all(b"x").unwrap();
    let mut stream = served.open(&offer, 0).await;
    stream.request_run(0, 1).await;
    let (bytes, code) = stream.got().await.code();
    assert!(bytes == content(100_000)[..65_536]);
    assert_eq!(code, ErrorCode::SourceChanged);
    // The stream continues; a request for the digests ends it.
    stream.request(&[Request::Digest(WholeDigests::Blake3)]).await;
    assert_eq!(stream.got().await.refused(), ErrorCode::SourceChanged);
    assert_eq!(stream.got().await, Got::End);
    assert_eq!(served.failed().await, StreamFailure::SourceChanged);
}

#[tokio::test]
async fn digests_from_before_a_change_are_not_sent_after_it() {
    let served = Served::start().await;
    let path = served.file("f", b"abc");
    let offer = served.session("f", 1).await;
    let mut stream = served.open(&offer, 0).await;
    assert_eq!(stream.digests(WholeDigests::Blake3).await.blake3, Blake3Digest::of(b"abc"));
    std::fs::File::options().append(true).open(&path).unwrap().write_all(b"x").unwrap();
    stream.request(&[Request::Digest(WholeDigests::Blake3)]).await;
    assert_eq!(stream.got().await.refused(), ErrorCode::SourceChanged);
}

#[tokio::test]
async fn bytes_missing_from_a_shorter_file_are_zeros() {
    let served = Served::start().await;
    let path = served.file("f", &vec![7; 3_000_000]);
    let offer = served.session("f", 1).await;
    let mut stream = served.open_stream(&offer, 0).await;
    std::fs::File::options().write(true).open(&path).unwrap().set_len(1_500_000).unwrap();
    let n_blocks = offer.manifest.n_blocks();
    for (first, count, n) in [
        (0, n_blocks, 1_500_000),
        (16, 16, 1_500_000 - (1 << 20)),
        (32, n_blocks - 32, 0),
        (0, 1, to_usize(BLOCK)),
    ] {
        stream.request_run(first, count).await;
        let (bytes, code) = stream.got().await.code();
        assert_eq!(code, ErrorCode::SourceChanged, "{first}");
        let run = offer.manifest.run(first, count).unwrap();
        assert_eq!(Some(to_u64(bytes.len())), offer.manifest.run_len(run));
        let sent = bytes.iter().take_while(|byte| **byte == 7).count();
        assert!(sent <= n && bytes[sent..].iter().all(|byte| *byte == 0), "{first}");
    }
}

#[tokio::test]
async fn change_within_a_run_is_reported_at_its_end() {
    let written: fn(&PathBuf) = |path| {
        std::fs::File::options().write(true).open(path).unwrap().write_all_at(b"x", 0).unwrap();
    };
    let truncated: fn(&PathBuf) = |path| {
        std::fs::File::options().write(true).open(path).unwrap().set_len(1).unwrap();
    };
    for change in [written, truncated] {
        let served = Served::start().await;
        let path = served.sparse("f", LARGE);
        let offer = served.session("f", 1).await;
        let socket = TcpSocket::new_v4().unwrap();
        // So that a part of the run is not sent yet when the file changes.
        socket.set_recv_buffer_size(64 << 10).unwrap();
        let socket = within(socket.connect(served.address)).await.unwrap();
        let mut stream = Peer { socket, manifest: offer.manifest };
        stream.socket.write_all(&hello(&offer, 0, Replacing::Nothing)).await.unwrap();
        stream.request_run(0, LONGEST).await;
        stream.answering().await;
        change(&path);
        let (bytes, code) = stream.got().await.code();
        assert_eq!((bytes.len(), code), (16 << 20, ErrorCode::SourceChanged));
    }
}

#[tokio::test]
async fn remembered_digest_is_not_sent_for_other_bytes() {
    let served = Served::start().await;
    let path = served.file("f", &[1; 1000]);
    settle(&path).await;
    let offer = served.session("f", 1).await;
    let mut stream = served.open_stream(&offer, 0).await;
    let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[2; 1000], 0).unwrap();
    // Size and time are those of the offer again.
    file.set_modified(modified).unwrap();
    assert_eq!(stream.fetch(0, 1).await, [2; 1000]);
}

#[tokio::test]
async fn wrong_remembered_digest_is_forgotten_when_its_block_is_requested_again() {
    let served = Served::start().await;
    let path = served.file("f", &vec![1; 200_000]);
    settle(&path).await;
    // As if the file had been written through a mapping, which the times need not show.
    let wrong = {
        let source = SourceFile::new(std::fs::File::open(&path).unwrap()).unwrap();
        let manifest = served.session("f", 1).await.manifest;
        let (context, block) = (served.context.upgrade().unwrap(), manifest.block(1).unwrap());
        let wrong = RangeDigest::of(200_000, manifest.range(block), &vec![2; 65_536]).unwrap();
        let (now, begin) = (source.identity(), SystemTime::now());
        context.send.digests.blocks().remember(&source, &manifest, block, wrong, &now, begin);
        wrong
    };
    let offer = served.session("f", 1).await;
    let mut stream = served.open(&offer, 0).await;
    // In the middle of a run whose other digests are computed.
    stream.request_run(0, 4).await;
    let Got::Data(_, bytes, Ok(digests)) = stream.got().await else { panic!() };
    assert!(bytes == vec![1; 200_000] && digests[1] == wrong);
    let digest = |block: u64| {
        let range = offer.manifest.range(offer.manifest.block(block).unwrap());
        RangeDigest::of(200_000, range, &vec![1; to_usize(range.len())]).unwrap()
    };
    assert_eq!([digests[0], digests[2], digests[3]], [digest(0), digest(2), digest(3)]);
    stream.fetch(1, 1).await;
    stream.fetch(0, 4).await;
    let offer = served.session("f", 1).await;
    let mut stream = served.open_stream(&offer, 0).await;
    assert_eq!(stream.digests(WholeDigests::Blake3).await.blake3, Blake3Digest::of(&vec![1; 200_000]));
}

#[tokio::test]
async fn removed_file_is_still_sent() {
    let served = Served::start().await;
    let path = served.file("f", b"abc");
    let offer = served.session("f", 1).await;
    std::fs::remove_file(path).unwrap();
    let mut stream = served.open_stream(&offer, 0).await;
    assert_eq!(stream.digests(WholeDigests::Blake3).await.blake3, Blake3Digest::of(b"abc"));
}

#[tokio::test]
async fn invalid_request_is_refused_after_the_valid_ones_before_it() {
    let mut served = Served::start().await;
    let content = content(100_000);
    served.file("f", &content);
    let offer = served.session("f", 1).await;
    let run = |first, count, length| Request::Run(WireRun { first, count, length }).encode();
    for bad in [
        run(0, 1, 32 << 20),
        run(0, 1, BLOCK - 1),
        run(0, 2, BLOCK),
        run(1, 1, 34_465),
        run(2, 1, 1),
        run(0, 0, 0),
        run(0, 3, 100_000),
        run(u64::MAX, 1, 1),
        [0; 24],
        Response::Drain.encode(),
    ] {
        let mut stream = served.open(&offer, 0).await;
        let requests = [run(1, 1, 34_464), bad, run(0, 1, BLOCK)].concat();
        within(stream.socket.write_all(&requests)).await.unwrap();
        assert!(stream.received(1, 1).await == content[65_536..]);
        assert_eq!(stream.got().await.refused(), ErrorCode::ProtocolViolation, "{bad:?}");
        assert_eq!(stream.got().await, Got::End);
        assert_eq!(served.failed().await, StreamFailure::BrokenProtocol);
    }
    served.open_stream(&offer, 0).await;
}
