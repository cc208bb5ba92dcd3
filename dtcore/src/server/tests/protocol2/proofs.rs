//! Digests of blocks without their data, for receivers that have the blocks.

use std::os::unix::fs::FileExt;

use super::*;

fn proof_of(manifest: &Manifest, first: u64, count: u32) -> Request {
    Request::Proof(wire_run(manifest, first, count))
}

/// The digests of these blocks.
fn digests_of(content: &[u8], manifest: &Manifest, run: BlockRun) -> Vec<RangeDigest> {
    let digest = |block| {
        let range = manifest.range(block);
        RangeDigest::of(manifest.size(), range, part(content, range)).unwrap()
    };
    manifest.blocks_of(run).map(digest).collect()
}

#[tokio::test]
async fn digests_are_sent_without_data_and_hashed_once() {
    let served = Served::start().await;
    let content = content(20_000_000);
    let path = served.file("f", &content);
    settle(&path).await;
    for round in 0..2 {
        let offer = served.session("f", 1).await;
        let mut stream = served.open(&offer, 0).await;
        let n = offer.manifest.n_blocks();
        let runs = [(0, 1), (1, LONGEST), (1 + u64::from(LONGEST), n - 1 - LONGEST)];
        stream.request(&runs.map(|(first, count)| proof_of(&offer.manifest, first, count))).await;
        for (first, count) in runs {
            let run = offer.manifest.run(first, count).unwrap();
            let digests = digests_of(&content, &offer.manifest, run);
            assert_eq!(stream.got().await, Got::Proof(run, Ok(digests)), "round {round}");
        }
        // Once more in the same session.
        let run = offer.manifest.run(3, 1).unwrap();
        stream.request(&[proof_of(&offer.manifest, 3, 1)]).await;
        assert_eq!(stream.got().await, Got::Proof(run, Ok(digests_of(&content, &offer.manifest, run))));
        assert_eq!((served.stats.bytes_hashed(), served.stats.bytes_sent()), (20_000_000, round * BLOCK));
        assert!(stream.fetch(3, 1).await == content[to_usize(3 * BLOCK)..][..to_usize(BLOCK)]);
    }
}

#[tokio::test]
async fn digests_of_a_changed_file_are_not_sent() {
    let served = Served::start().await;
    let path = served.file("f", &content(300_000));
    let offer = served.session("f", 1).await;
    let mut stream = served.open_stream(&offer, 0).await;
    std::fs::File::options().write(true).open(&path).unwrap().write_all_at(b"x", 5).unwrap();
    stream.request(&[proof_of(&offer.manifest, 0, 4), proof_of(&offer.manifest, 4, 1)]).await;
    for (first, count) in [(0, 4), (4, 1)] {
        let run = offer.manifest.run(first, count).unwrap();
        assert_eq!(stream.got().await, Got::Proof(run, Err(ErrorCode::SourceChanged)));
    }
}

#[tokio::test]
async fn nothing_is_hashed_for_a_receiver_that_has_left() {
    const RUNS: u64 = 60;
    let run = 16 << 20;
    let mut served = Served::start().await;
    for (name, leave) in [("f", &[Request::Leave][..]), ("g", &[])] {
        served.sparse(name, RUNS * run);
        let before = served.stats.bytes_hashed();
        let offer = served.session(name, 1).await;
        let per_run = run / offer.manifest.block_size().bytes();
        let count = u32::try_from(per_run).unwrap();
        let mut stream = served.open(&offer, 0).await;
        let requests: Vec<_> = (0..RUNS).map(|i| proof_of(&offer.manifest, i * per_run, count)).collect();
        stream.request(&requests).await;
        assert!(matches!(stream.got().await, Got::Proof(..)));
        stream.request(leave).await;
        drop(stream);
        let ended = |event: &ServerEvent| {
            matches!(event, ServerEvent::StreamFinished { .. } | ServerEvent::StreamFailed { .. })
                .then_some(())
        };
        served.event(ended).await;
        let hashed = served.stats.bytes_hashed() - before;
        assert!(hashed < RUNS * run / 2, "{hashed} bytes were hashed");
    }
}
