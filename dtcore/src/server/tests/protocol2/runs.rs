//! Runs: the right bytes, in the right order, and nothing hashed twice.

use std::os::unix::fs::FileExt;

use super::*;

#[tokio::test]
async fn files_of_all_sizes_are_complete() {
    let served = Served::start().await;
    let block = to_usize(BLOCK);
    for len in [1, 1023, 1025, block - 1, block, block + 1, 3 * block, 200_000] {
        let content = content(len);
        served.file("f", &content);
        let offer = served.session("f", 2).await;
        assert_eq!((offer.manifest.size(), offer.manifest.block_size().bytes()), (to_u64(len), BLOCK));
        let mut stream = served.open(&offer, 1).await;
        let n = offer.manifest.n_blocks();
        let mut digests = Vec::new();
        for block in 0..u64::from(n) {
            stream.request_run(block, 1).await;
            let Got::Data(_, _, Ok(digest)) = stream.got().await else { panic!("{block}") };
            digests.extend(digest);
        }
        assert!(stream.fetch(0, n).await == content, "{len}");
        let digest = stream.digests(WholeDigests::Blake3AndMd5).await;
        assert_eq!(digest.md5, Some(Md5Digest::of(&content)));
        assert_eq!(digest.blake3, Blake3Digest::of(&content));
        assert_eq!(Blake3Digest::of_blocks(&offer.manifest, &digests), Some(digest.blake3));
        stream.request(&[Request::End]).await;
        assert_eq!(stream.got().await, Got::End);
    }
}

#[tokio::test]
async fn runs_of_all_lengths_are_complete() {
    let served = Served::start().await;
    let content = content(20_000_000);
    let path = served.file("f", &content);
    settle(&path).await;
    let last = u32::try_from(content.len().div_ceil(to_usize(BLOCK))).unwrap() - 1;
    // With the digests to be computed, known, and known in part.
    for (first, count) in
        [(0, 1), (3, 2), (2, 40), (0, LONGEST), (50, LONGEST - 3), (last.into(), 1), (0, 17)]
    {
        let offer = served.session("f", 1).await;
        let mut stream = served.open(&offer, 0).await;
        let range = offer.manifest.run_range(offer.manifest.run(first, count).unwrap()).unwrap();
        assert!(stream.fetch(first, count).await == part(&content, range), "{range}");
    }
    let n = u64::from(last) - u64::from(LONGEST) + 1;
    let offer = served.session("f", 1).await;
    let mut stream = served.open(&offer, 0).await;
    assert!(stream.fetch(n, LONGEST).await == content[to_usize(n * BLOCK)..]);
}

#[tokio::test]
async fn offsets_beyond_four_gigabytes_are_right() {
    let served = Served::start().await;
    let size = (5 << 30) + 7;
    let file = std::fs::File::options().write(true).open(served.sparse("f", size)).unwrap();
    for at in [(1 << 32) - 1, 1 << 32, size - 1] {
        file.write_all_at(b"x", at).unwrap();
    }
    let offer = served.session("f", 1).await;
    let mut stream = served.open(&offer, 0).await;
    for at in [(1 << 32) - 1, 1 << 32, size - 1] {
        let block = at / offer.manifest.block_size().bytes();
        let bytes = stream.fetch(block, 1).await;
        let place = to_usize(at % offer.manifest.block_size().bytes());
        assert!(bytes.iter().enumerate().all(|(i, byte)| (*byte == b'x') == (i == place)), "{at}");
    }
}

#[tokio::test]
async fn many_requests_in_any_pieces_are_answered_in_order() {
    let served = Served::start().await;
    let content = content(1 << 20);
    served.file("f", &content);
    let offer = served.session("f", 1).await;
    // More than the sender queues.
    let blocks: Vec<u64> = (0..1024).map(|i| i * 7 % 16).collect();
    let requests: Vec<u8> =
        blocks.iter().flat_map(|block| run_of(&offer.manifest, *block, 1).encode()).collect();
    let mut stream = served.open(&offer, 0).await;
    stream.socket.set_nodelay(true).unwrap();
    let (first, rest) = requests.split_at(33);
    within(stream.socket.write_all(first)).await.unwrap();
    stream.received(blocks[0], 1).await;
    within(stream.socket.write_all(rest)).await.unwrap();
    for block in &blocks[1..] {
        let start = to_usize(block * BLOCK);
        assert!(stream.received(*block, 1).await == content[start..start + to_usize(BLOCK)], "{block}");
    }
}

#[tokio::test]
async fn unchanged_file_is_hashed_once() {
    let served = Served::start().await;
    let content = content(300_000);
    let path = served.file("f", &content);
    settle(&path).await;
    for round in 0..3 {
        let offer = served.session("f", 1).await;
        let known = (round > 0).then(|| (Md5Digest::of(&content), Blake3Digest::of(&content)));
        assert_eq!(offer.md5.zip(offer.blake3), known);
        let mut stream = served.open(&offer, 0).await;
        stream.fetch(0, 2).await;
        let digests = stream.digests(WholeDigests::Blake3AndMd5).await;
        assert_eq!(
            (digests.md5, digests.blake3),
            (Some(Md5Digest::of(&content)), Blake3Digest::of(&content))
        );
        // Once for each of the two digests.
        assert_eq!(served.stats.bytes_hashed(), 600_000);
    }
}

#[tokio::test]
async fn flipped_bit_in_a_request_costs_only_its_stream() {
    let mut served = Served::start().await;
    let content = content(300_000);
    served.file("f", &content);
    let offer = served.session("f", 2).await;
    let mut other = served.open_stream(&offer, 1).await;
    let request = run_of(&offer.manifest, 1, 2).encode();
    for bit in 0..FRAME_LEN * 8 {
        let mut flipped = request;
        flipped[bit / 8] ^= 1 << (bit % 8);
        let mut stream = served.open(&offer, 0).await;
        stream.request_run(0, 1).await;
        within(stream.socket.write_all(&flipped)).await.unwrap();
        assert!(stream.received(0, 1).await == content[..to_usize(BLOCK)]);
        assert_eq!(stream.got().await.refused(), ErrorCode::ProtocolViolation, "bit {bit}");
        assert_eq!(stream.got().await, Got::End);
        assert_eq!(served.failed().await, StreamFailure::BrokenProtocol);
    }
    assert!(other.fetch(0, offer.manifest.n_blocks()).await == content);
}

#[tokio::test]
async fn version_stands_for_one_content() {
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
