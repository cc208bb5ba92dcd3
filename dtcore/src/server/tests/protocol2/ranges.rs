//! Ranges and digests: the right bytes, in the right order, and nothing hashed twice.

use std::os::unix::fs::FileExt;

use super::*;

#[tokio::test]
async fn files_of_every_size_come_whole() {
    let served = Served::start().await;
    let block = 64 << 10;
    for len in [1, 1023, 1025, block - 1, block, block + 1, 3 * block, 200_000] {
        let content = content(len);
        served.file("f", &content);
        let answer = served.session("f", 2).await;
        let manifest = answer.manifest;
        assert_eq!((manifest.size(), manifest.block_size().bytes()), (u64::try_from(len).unwrap(), 64 << 10));
        let mut stream = Stream2::open(&answer, 1).await;
        let ranges: Vec<_> = manifest.blocks().map(|block| manifest.range(block)).collect();
        let demands: Vec<_> = ranges.iter().map(|range| Demand::Range(*range)).collect();
        stream.demand(&demands).await;
        let mut digests = Vec::new();
        for range in ranges {
            let got = stream.got().await;
            let Got::Data(_, _, Trailer(Ok(digest))) = got else { panic!("{got:?}") };
            digests.push(digest);
            let (of, bytes) = got.verified(manifest.size());
            assert_eq!(of, range);
            assert!(bytes == part(&content, range), "{len}: {range}");
        }
        let whole = stream.digests(WholeDigests::Blake3AndMd5).await;
        assert_eq!(whole.md5, Some(Md5Digest::of(&content)));
        assert_eq!(whole.blake3, Blake3Digest::of(&content));
        assert_eq!(Blake3Digest::of_blocks(&manifest, &digests), Some(whole.blake3));
        stream.demand(&[Demand::End]).await;
        assert_eq!(stream.got().await, Got::End);
    }
}

#[tokio::test]
async fn subtrees_that_are_no_blocks_come_too() {
    let served = Served::start().await;
    let content = content(5_000_000);
    served.file("f", &content);
    let answer = served.session("f", 1).await;
    let mut stream = Stream2::open(&answer, 0).await;
    let mib = 1 << 20;
    for range in [
        ByteRange::new(32 << 10, 64 << 10),
        ByteRange::new(1024, 2048),
        ByteRange::new(0, 4 * mib),
        ByteRange::new(2 * mib, 4 * mib),
        ByteRange::new(4 * mib, 5_000_000),
        ByteRange::new(4_999_168, 5_000_000),
        ByteRange::new(0, 5_000_000),
    ] {
        let (of, bytes) = stream.fetch(range).await.verified(5_000_000);
        assert_eq!(of, range);
        assert!(bytes == part(&content, range), "{range}");
    }
}

#[tokio::test]
async fn offsets_beyond_four_gigabytes_are_right() {
    let served = Served::start().await;
    let size = (5 << 30) + 7;
    let file = std::fs::File::options().write(true).open(served.sparse("f", size)).unwrap();
    for at in [(1 << 32) - 1, 1 << 32, size - 1] {
        file.write_all_at(b"x", at).unwrap();
    }
    let answer = served.session("f", 1).await;
    let manifest = answer.manifest;
    let mut stream = Stream2::open(&answer, 0).await;
    for at in [(1 << 32) - 1, 1 << 32, size - 1] {
        let range = manifest.range(manifest.block(at / manifest.block_size().bytes()).unwrap());
        let (_, bytes) = stream.fetch(range).await.verified(size);
        let place = usize::try_from(at - range.start()).unwrap();
        assert!(bytes.iter().enumerate().all(|(i, byte)| (*byte == b'x') == (i == place)), "{at}");
    }
}

#[tokio::test]
async fn many_demands_in_any_pieces_are_answered_in_order() {
    let served = Served::start().await;
    let content = content(1 << 20);
    served.file("f", &content);
    let answer = served.session("f", 1).await;
    // More than the sender holds at once.
    let ranges: Vec<_> = (0..1024).map(|i| ByteRange::with_len((i * 7 % 1024) << 10, 1024)).collect();
    let demands: Vec<u8> = ranges.iter().flat_map(|range| Demand::Range(*range).encode()).collect();
    let mut stream = Stream2::open(&answer, 0).await;
    stream.socket.set_nodelay(true).unwrap();
    let (first, rest) = demands.split_at(33);
    within(stream.socket.write_all(first)).await.unwrap();
    assert_eq!(stream.got().await.verified(1 << 20).0, ranges[0]);
    within(stream.socket.write_all(rest)).await.unwrap();
    for range in &ranges[1..] {
        let (of, bytes) = stream.got().await.verified(1 << 20);
        assert_eq!(of, *range);
        assert!(bytes == part(&content, *range), "{range}");
    }
}

#[tokio::test]
async fn what_is_unchanged_is_hashed_once() {
    let served = Served::start().await;
    let content = content(300_000);
    let path = served.file("f", &content);
    settle(&path).await;
    for round in 0..3 {
        let answer = served.session("f", 1).await;
        let known = (round > 0).then(|| (Md5Digest::of(&content), Blake3Digest::of(&content)));
        assert_eq!(answer.md5.zip(answer.blake3), known);
        let mut stream = Stream2::open(&answer, 0).await;
        for block in answer.manifest.blocks().take(2) {
            stream.fetch(answer.manifest.range(block)).await.verified(300_000);
        }
        let whole = stream.digests(WholeDigests::Blake3AndMd5).await;
        assert_eq!((whole.md5, whole.blake3), (Some(Md5Digest::of(&content)), Blake3Digest::of(&content)));
        // Once for either digest.
        assert_eq!(served.stats.bytes_hashed(), 600_000);
    }
}

#[tokio::test]
async fn nothing_is_hashed_before_the_answer() {
    let served = Served::start().await;
    // It would take an hour.
    served.sparse("huge", 1 << 40);
    let answer = served.session("huge", 8).await;
    assert_eq!((answer.md5, answer.blake3), (None, None));
    assert_eq!(served.stats.bytes_hashed(), 0);
}

#[tokio::test]
async fn an_md5_that_will_be_asked_for_begins_at_once_and_ends_with_the_session() {
    let served = Served::start().await;
    served.sparse("huge", 1 << 40);
    let body = "{\"threads\": 1, \"protocol\": 2, \"md5\": true}";
    let answer = served.session_with("huge", body).await;
    within(async {
        while served.stats.bytes_hashed() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut stream = Stream2::open(&answer, 0).await;
    stream.demand(&[Demand::End]).await;
    assert_eq!(stream.got().await, Got::End);
    within(async {
        let mut before = 0;
        while before != served.stats.bytes_hashed() {
            before = served.stats.bytes_hashed();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn who_waits_for_digests_hears_that_somebody_works_on_them() {
    let served = Served::start().await;
    served.sparse("huge", 1 << 40);
    let answer = served.session("huge", 1).await;
    let mut stream = Stream2::open(&answer, 0).await;
    stream.demand(&[Demand::Digest(WholeDigests::Blake3)]).await;
    let mut before = 0;
    for _ in 0..2 {
        let Ok(Reply::Wait { hashed }) = Reply::decode(&stream.array().await) else { panic!() };
        assert!(hashed > before);
        before = hashed;
    }
    served.shutdown.cancel();
    assert_eq!(stream.got().await, Got::Drain);
    served.stop().await;
}

#[tokio::test]
async fn an_empty_file_is_its_answer() {
    let mut served = Served::start().await;
    served.file("f", b"");
    let answer = served.session("f", 3).await;
    assert_eq!(answer.manifest.size(), 0);
    served.finished().await;
    assert_eq!(Stream2::open(&answer, 0).await.got().await.refused(), ErrorCode::NoSuchSession);
}

#[tokio::test]
async fn a_version_stands_for_one_content() {
    let served = Served::start().await;
    let path = served.file("f", b"abc");
    let first = served.session("f", 1).await;
    let second = served.session("f", 1).await;
    assert_eq!((first.version, first.modified), (second.version, second.modified));
    assert!(first.session != second.session && first.secret != second.secret);
    std::fs::File::options().append(true).open(&path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    let third = served.session("f", 1).await;
    assert_eq!(third.modified, 0);
    assert_ne!(third.version, second.version);
    assert_eq!(Manifest::new(3, third.manifest.block_size()), Ok(third.manifest));
}
