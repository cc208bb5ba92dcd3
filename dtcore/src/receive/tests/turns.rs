//! What a stream asks for when it is its turn.

use std::time::Duration;

use super::{BLOCK, Scene, shared_of, stream};
use crate::manifest::StreamId;
use crate::proto::v2::{Demand, FRAME_LEN, Requester, WholeDigests, WholeDigestsReply};
use crate::receive::shared::{Shared, Turn};

const RTT: Duration = Duration::from_millis(1);

/// What the stream asks for in its turn: where the ranges begin, or `None` for the file's digests.
fn asks(shared: &Shared, stream: StreamId, requester: &mut Requester) -> Vec<Option<u64>> {
    let mut demands = Vec::new();
    assert_eq!(shared.turn(stream, requester, &mut demands), Turn::Go);
    let (frames, rest) = demands.as_chunks::<FRAME_LEN>();
    assert!(rest.is_empty());
    let told = |demand| match demand {
        Demand::Range(range) => Some(range.start() / BLOCK),
        Demand::Digest(WholeDigests::Blake3) => None,
        Demand::Digest(WholeDigests::Blake3AndMd5) | Demand::End => panic!("nobody wants that: {demand:?}"),
    };
    frames.iter().map(|frame| told(Demand::decode(frame).unwrap())).collect()
}

/// A transfer of one block in which the second stream has asked for it and for the digests, and gives the block back.
fn with_digests_asked_for() -> (Shared, [(StreamId, Requester); 2]) {
    let shared = shared_of(Scene { size: BLOCK, ..Scene::default() });
    let [one, mut digests] = [0, 1].map(|number| (stream(number), Requester::new(shared.manifest)));
    shared.opened(digests.0, RTT);
    assert_eq!(asks(&shared, digests.0, &mut digests.1), [Some(0), None]);
    shared.opened(one.0, RTT);
    shared.skipped(digests.0, shared.manifest.block(0).unwrap());
    (shared, [one, digests])
}

#[test]
fn nothing_is_asked_for_behind_the_digests_while_there_is_another_stream() {
    let (shared, [mut one, mut digests]) = with_digests_asked_for();
    assert_eq!(asks(&shared, digests.0, &mut digests.1), []);
    assert_eq!(asks(&shared, one.0, &mut one.1), [Some(0)]);
    shared.lost(one.0, String::new());
    assert_eq!(asks(&shared, digests.0, &mut digests.1), [Some(0)], "nobody else is there");
}

#[test]
fn a_stream_that_has_brought_the_digests_is_one_like_the_others() {
    let (shared, [_, mut digests]) = with_digests_asked_for();
    shared.whole(WholeDigestsReply { blake3: [0; 32].into(), md5: None });
    assert_eq!(asks(&shared, digests.0, &mut digests.1), [Some(0)]);
}
