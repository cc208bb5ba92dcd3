//! What a stream asks for when it is its turn.

use std::time::Duration;

use super::{BLOCK, Scene, shared_of, stream};
use crate::plan::StreamId;
use crate::receiver::protocol2::shared::{Shared, Turn};
use crate::session::Receiving;
use crate::wire::v2::{Demand, FRAME_LEN, WholeDigests, WholeDigestsReply};

const RTT: Duration = Duration::from_millis(1);

/// What the stream asks for in its turn: where the ranges begin, or `None` for the file's digests.
fn asks(shared: &Shared, stream: StreamId, receiving: &mut Receiving) -> Vec<Option<u64>> {
    let mut demands = Vec::new();
    assert_eq!(shared.turn(stream, receiving, &mut demands), Turn::Go);
    let (frames, rest) = demands.as_chunks::<FRAME_LEN>();
    assert!(rest.is_empty());
    let told = |demand| match demand {
        Demand::Range(range) => Some(range.start() / BLOCK),
        Demand::Digest(WholeDigests::Blake3) => None,
        Demand::Digest(WholeDigests::Blake3AndMd5) | Demand::End => panic!("nobody wants that: {demand:?}"),
    };
    frames.iter().map(|frame| told(Demand::decode(frame).unwrap())).collect()
}

#[test]
fn nothing_is_asked_for_behind_the_digests_while_there_is_another_stream() {
    let shared = shared_of(Scene::default());
    let (one, digests) = (stream(0), stream(1));
    let [mut receiving_one, mut receiving_digests] = [(); 2].map(|()| Receiving::new(shared.plan));
    shared.opened(one, RTT);
    shared.opened(digests, RTT);
    assert_eq!(asks(&shared, one, &mut receiving_one), [Some(0)]);
    assert_eq!(asks(&shared, digests, &mut receiving_digests), [Some(1), None]);
    shared.lost(one, String::new());
    shared.opened(one, RTT);
    assert_eq!(asks(&shared, digests, &mut receiving_digests), []);
    assert_eq!(asks(&shared, one, &mut Receiving::new(shared.plan)), [Some(0)]);
    shared.lost(one, String::new());
    assert_eq!(asks(&shared, digests, &mut receiving_digests), [Some(0)], "nobody else is there");
}

#[test]
fn a_stream_that_has_brought_the_digests_is_one_like_the_others() {
    let shared = shared_of(Scene { size: BLOCK, ..Scene::default() });
    let (one, digests) = (stream(0), stream(1));
    let mut receiving = Receiving::new(shared.plan);
    shared.opened(digests, RTT);
    assert_eq!(asks(&shared, digests, &mut receiving), [Some(0), None]);
    shared.opened(one, RTT);
    shared.whole(WholeDigestsReply { blake3: [0; 32].into(), md5: None });
    shared.skipped(digests, shared.plan.block(0).unwrap());
    assert_eq!(asks(&shared, digests, &mut receiving), [Some(0)]);
}
