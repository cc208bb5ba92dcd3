//! What streams share and say, without a server: the transfers and the peers that the tests are made of.

mod stream_driver;
mod turns;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::client::control::Session;
use crate::client::dialled_source::DialledSource;
use crate::client::options::Options;
use crate::event;
use crate::manifest::{BlockSet, BlockSize, Manifest, StreamCount, StreamId};
use crate::proto::v2::Answer;
use crate::receive::shared::{Beginning, Shared};
use crate::schedule::{Policy, Retries, Scheduler};
use crate::sink::{Engine, FileSink, open};

/// The block of all transfers here.
pub(crate) const BLOCK: u64 = 16 << 10;

/// A transfer that is about to begin.
#[derive(Clone, Copy)]
pub(crate) struct Scene {
    pub(crate) size: u64,
    pub(crate) streams: u64,
    /// How long it took to get so far.
    pub(crate) took: Duration,
    /// Whether all blocks are there already.
    pub(crate) is_there: bool,
    pub(crate) stall_timeout: Duration,
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
pub(crate) fn shared_of(scene: Scene) -> Shared {
    let manifest = Manifest::new(scene.size, BlockSize::new(BLOCK).unwrap()).unwrap();
    let streams = StreamCount::new(scene.streams).unwrap();
    let mut options = Options::new("127.0.0.1:1".parse().unwrap(), "f".into());
    (options.streams, options.stall_timeout) = (streams, scene.stall_timeout);
    let answer = Answer {
        manifest,
        modified: 0,
        version: [1; 16].into(),
        port: 1,
        session: 1.into(),
        secret: [7; 16].into(),
        md5: None,
        blake3: None,
    };
    let server = ([127, 0, 0, 1], 1).into();
    let place_freed = Arc::new(Notify::new());
    let waiting = Arc::clone(&place_freed);
    let notify = Box::new(move || waiting.notify_waiters());
    let store = open(&tempfile::tempfile().unwrap(), Engine::Write, manifest.size()).unwrap();
    let mut done = BlockSet::new(&manifest);
    if scene.is_there {
        for block in manifest.blocks() {
            done.insert(block);
        }
    }
    let started = Instant::now().checked_sub(scene.took).unwrap();
    let policy = Policy { stall_timeout: scene.stall_timeout, ..Policy::default() };
    Shared::new(Beginning {
        manifest,
        blocks: FileSink::new(manifest, store, None, &done, notify).unwrap(),
        place_freed,
        access: DialledSource::new(Session { answer, control: server, data: server }),
        events: event::channel().0,
        path: PathBuf::from("out"),
        follower: None,
        scheduler: Scheduler::new(manifest, done, streams, policy, started.elapsed()),
        retries: Retries::new(3, usize::from(streams.value())),
        digests: manifest.blocks().map(|_| None).collect(),
        started,
        resumed: 0,
        options,
    })
}

/// The stream with that number.
pub(crate) fn stream(number: u64) -> StreamId {
    StreamCount::new(255).unwrap().stream(u8::try_from(number).unwrap()).unwrap()
}
