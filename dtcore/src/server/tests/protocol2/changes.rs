//! Sources that change, and receivers that ask for what cannot be.

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::time::SystemTime;

use tokio::net::TcpSocket;

use super::*;
use crate::backend::Object;
use crate::backend::fs::SourceFile;

const MIB: u64 = 1 << 20;

#[tokio::test]
async fn a_file_that_grew_has_changed() {
    let mut served = Served::start().await;
    let path = served.file("f", &content(100_000));
    let answer = served.session("f", 1).await;
    std::fs::File::options().append(true).open(&path).unwrap().write_all(b"x").unwrap();
    let mut stream = Stream2::open(&answer, 0).await;
    let (bytes, code) = stream.fetch(ByteRange::new(0, 65_536)).await.code();
    assert!(bytes == content(100_000)[..65_536]);
    assert_eq!(code, ErrorCode::SourceChanged);
    // The stream goes on; its digests are not to be had.
    stream.demand(&[Demand::Digest(WholeDigests::Blake3)]).await;
    assert_eq!(stream.got().await.refused(), ErrorCode::SourceChanged);
    assert_eq!(stream.got().await, Got::End);
    assert_eq!(served.failed().await, StreamFailure::SourceChanged);
}

#[tokio::test]
async fn digests_that_were_told_before_a_change_are_not_told_after_it() {
    let served = Served::start().await;
    let path = served.file("f", b"abc");
    let answer = served.session("f", 1).await;
    let mut stream = Stream2::open(&answer, 0).await;
    assert_eq!(stream.digests(WholeDigests::Blake3).await.blake3, Blake3Digest::of(b"abc"));
    std::fs::File::options().append(true).open(&path).unwrap().write_all(b"x").unwrap();
    stream.demand(&[Demand::Digest(WholeDigests::Blake3)]).await;
    assert_eq!(stream.got().await.refused(), ErrorCode::SourceChanged);
}

#[tokio::test]
async fn what_a_shorter_file_lacks_comes_as_zeros() {
    let served = Served::start().await;
    let path = served.file("f", &vec![7; 3_000_000]);
    let answer = served.session("f", 1).await;
    let mut stream = Stream2::begun(&answer, 0).await;
    std::fs::File::options().write(true).open(&path).unwrap().set_len(1_500_000).unwrap();
    for (range, n) in [
        (ByteRange::new(0, 3_000_000), 1_500_000),
        (ByteRange::new(MIB, 2 * MIB), 1_500_000 - (1 << 20)),
        (ByteRange::new(2 * MIB, 3_000_000), 0),
        (ByteRange::new(0, 1024), 1024),
    ] {
        let (bytes, code) = stream.fetch(range).await.code();
        assert_eq!(code, ErrorCode::SourceChanged, "{range}");
        assert_eq!(u64::try_from(bytes.len()).unwrap(), range.len());
        let sent = bytes.iter().take_while(|byte| **byte == 7).count();
        assert!(sent <= n && bytes[sent..].iter().all(|byte| *byte == 0), "{range}");
    }
}

#[tokio::test]
async fn a_change_within_a_range_is_told_at_its_end() {
    let written: fn(&PathBuf) = |path| {
        std::fs::File::options().write(true).open(path).unwrap().write_all_at(b"x", 0).unwrap();
    };
    let truncated: fn(&PathBuf) = |path| {
        std::fs::File::options().write(true).open(path).unwrap().set_len(1).unwrap();
    };
    for change in [written, truncated] {
        let served = Served::start().await;
        let path = served.sparse("f", LARGE);
        let answer = served.session("f", 1).await;
        let socket = TcpSocket::new_v4().unwrap();
        // So that not all of the range is on its way when the file changes.
        socket.set_recv_buffer_size(64 << 10).unwrap();
        let mut stream = Stream2 { socket: within(socket.connect(data_port(&answer))).await.unwrap() };
        stream.socket.write_all(&hello(&answer, 0, Replacing::Nothing)).await.unwrap();
        stream.demand(&[Demand::Range(ByteRange::new(0, 16 * MIB))]).await;
        stream.answering().await;
        change(&path);
        let (bytes, code) = stream.got().await.code();
        assert_eq!((bytes.len(), code), (16 << 20, ErrorCode::SourceChanged));
    }
}

#[tokio::test]
async fn a_remembered_digest_does_not_stand_for_other_bytes() {
    let served = Served::start().await;
    let path = served.file("f", &[1; 1000]);
    settle(&path).await;
    let answer = served.session("f", 1).await;
    let mut stream = Stream2::begun(&answer, 0).await;
    let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[2; 1000], 0).unwrap();
    // Size and time are those of the answer again.
    file.set_modified(modified).unwrap();
    assert_eq!(stream.fetch(ByteRange::new(0, 1000)).await.verified(1000).1, [2; 1000]);
}

#[tokio::test]
async fn a_wrong_digest_that_is_remembered_is_forgotten_when_it_is_doubted() {
    let served = Served::start().await;
    let path = served.file("f", &[1; 1000]);
    settle(&path).await;
    let range = ByteRange::new(0, 1000);
    // As if the file had been written through a mapping, which the times need not show.
    let wrong = RangeDigest::of(1000, range, &[2; 1000]).unwrap();
    {
        let source = SourceFile::new(std::fs::File::open(&path).unwrap()).unwrap();
        let manifest = served.session("f", 1).await.manifest;
        let (shared, block) = (served.shared.upgrade().unwrap(), manifest.block(0).unwrap());
        let (now, begin) = (source.identity(), SystemTime::now());
        shared.digests.blocks().remember(&source, &manifest, block, wrong, &now, begin);
    }
    let answer = served.session("f", 1).await;
    let mut stream = Stream2::open(&answer, 0).await;
    let given = stream.fetch(range).await;
    assert_eq!(given, Got::Data(range, vec![1; 1000], Trailer(Ok(wrong))));
    assert_eq!(stream.digests(WholeDigests::Blake3).await.blake3, Blake3Digest::of(&[2; 1000]));
    stream.fetch(range).await.verified(1000);
    let answer = served.session("f", 1).await;
    assert_eq!(answer.blake3, None);
    let mut stream = Stream2::begun(&answer, 0).await;
    assert_eq!(stream.digests(WholeDigests::Blake3).await.blake3, Blake3Digest::of(&[1; 1000]));
}

#[tokio::test]
async fn a_removed_file_is_still_sent() {
    let served = Served::start().await;
    let path = served.file("f", b"abc");
    let answer = served.session("f", 1).await;
    std::fs::remove_file(path).unwrap();
    let mut stream = Stream2::begun(&answer, 0).await;
    assert_eq!(stream.digests(WholeDigests::Blake3).await.blake3, Blake3Digest::of(b"abc"));
}

#[tokio::test]
async fn who_asks_for_what_cannot_be_is_refused_after_what_can() {
    let mut served = Served::start().await;
    let content = content(100_000);
    served.file("f", &content);
    let answer = served.session("f", 1).await;
    let range = |start, len| Demand::Range(ByteRange::with_len(start, len)).encode();
    let mut with_file = range(0, 1024);
    with_file[4] = 1;
    for bad in [
        range(0, 2048 << 10),
        range(0, 32 << 20),
        range(1024, 2048),
        range(65_536, 34_465),
        range(0, 0),
        range(u64::MAX - 1023, 1023),
        [0; 24],
        [0x81; 24],
        with_file,
    ] {
        let mut stream = Stream2::open(&answer, 0).await;
        let demands = [range(65_536, 34_464), bad, range(0, 1024)].concat();
        within(stream.socket.write_all(&demands)).await.unwrap();
        assert!(stream.got().await.verified(100_000).1 == content[65_536..]);
        assert_eq!(stream.got().await.refused(), ErrorCode::BrokenProtocol, "{bad:?}");
        assert_eq!(stream.got().await, Got::End);
        assert_eq!(served.failed().await, StreamFailure::BrokenProtocol);
    }
    Stream2::begun(&answer, 0).await;
}
