//! What streams share and say, without a server: the transfers and the peers that the tests are made of.

mod conversation;
mod turns;

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use super::access::Access;
use super::shared::{Beginning, Shared};
use crate::event;
use crate::net::Session;
use crate::plan::{BlockPlan, BlockSet, BlockSize, StreamCount, StreamId};
use crate::receiver::options::Options;
use crate::schedule::{Policy, Retries, Scheduler};
use crate::storage::{BlockFile, Engine, open};
use crate::wire::v2::Answer;

/// The block of all transfers here.
pub(super) const BLOCK: u64 = 16 << 10;

/// A transfer that is about to begin.
#[derive(Clone, Copy)]
pub(super) struct Scene {
    pub(super) size: u64,
    pub(super) streams: u64,
    /// How long it took to get so far.
    pub(super) took: Duration,
    /// Whether all blocks are there already.
    pub(super) is_there: bool,
    pub(super) stall_timeout: Duration,
}

impl Default for Scene {
    fn default() -> Self {
        Self {
            size: 2 * BLOCK,
            streams: 2,
            took: Duration::ZERO,
            is_there: false,
            stall_timeout: Duration::from_secs(60),
        }
    }
}

/// What the streams of such a transfer share.
pub(super) fn shared_of(scene: Scene) -> Shared {
    let plan = BlockPlan::new(scene.size, BlockSize::new(BLOCK).unwrap()).unwrap();
    let streams = StreamCount::new(scene.streams).unwrap();
    let mut options = Options::new("127.0.0.1:1".parse().unwrap(), "f".into());
    (options.streams, options.stall_timeout) = (streams, scene.stall_timeout);
    let answer = Answer {
        plan,
        modified: 0,
        version: [1; 16].into(),
        port: 1,
        session: 1.into(),
        secret: [7; 16].into(),
        md5: None,
        blake3: None,
    };
    let server = ([127, 0, 0, 1], 1).into();
    let store = open(&tempfile::tempfile().unwrap(), Engine::Write, Some(plan.size())).unwrap();
    let mut done = BlockSet::new(&plan);
    if scene.is_there {
        for block in plan.blocks() {
            done.insert(block);
        }
    }
    let started = Instant::now().checked_sub(scene.took).unwrap();
    let policy = Policy { stall_timeout: scene.stall_timeout, ..Policy::default() };
    Shared::new(Beginning {
        plan,
        blocks: BlockFile::new(plan, store, None, done.clone()).unwrap(),
        access: Access::new(Session { answer, control: server, data: server }),
        events: event::channel().0,
        path: PathBuf::from("out"),
        follower: None,
        scheduler: Scheduler::new(plan, done, streams, policy, started.elapsed()),
        retries: Retries::new(3, usize::from(streams.value())),
        digests: plan.blocks().map(|_| None).collect(),
        started,
        resumed: 0,
        options,
    })
}

/// The stream with that number.
pub(super) fn stream(number: u64) -> StreamId {
    StreamCount::new(255).unwrap().stream(u8::try_from(number).unwrap()).unwrap()
}
