//! The receiving engine against peers that do what the test wants.

mod frame_reader;
mod prove;
mod store;
mod stream_driver;
mod supervise;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::completion::Completion;
use super::file_digest::FileDigest;
use super::settings::{ComputeMd5, Settings, Verification};
use super::source::{Opened, RemoteName, Source};
use super::stream_set::StreamSet;
use super::transfer::{ActiveTransfer, Counters};
use super::{DtStream, FrameReader};
use crate::digest::{Blake3Digest, RangeDigest};
use crate::event;
use crate::failure::Failure;
use crate::manifest::{BlockRun, BlockSet, BlockSize, Manifest, StreamCount, StreamId};
use crate::proto::v2::{Growth, Replacing, ReportedDigests, Response, WireRun, encode_trailer};
use crate::schedule::{Policy, Scheduler};
use crate::sink::{Durability, Engine, FileSink, open};
use crate::sync::Lock;
use crate::transport::Connection;

/// The block size of all transfers here.
const BLOCK: u64 = 16 << 10;

/// Longer than anything takes here; only a fault waits for it.
const LONG: Duration = Duration::from_secs(60);

/// A source whose connections were made before.
#[derive(Debug)]
struct ReadyMade {
    name: RemoteName,
    manifest: Manifest,
    connections: Mutex<VecDeque<Connection>>,
}

impl ReadyMade {
    fn new(manifest: Manifest) -> Self {
        let name = RemoteName { peer: "host:9000".to_owned(), file: "f".to_owned() };
        Self { name, manifest, connections: Mutex::default() }
    }
}

impl Source for ReadyMade {
    type Stream = DtStream;

    fn name(&self) -> &RemoteName {
        &self.name
    }

    async fn open(&self, _: StreamId, _: Replacing) -> Result<Opened<DtStream>, Failure> {
        let connection = self.connections.lock().unwrap().pop_front();
        let connection = connection.ok_or(Failure::Cancelled)?;
        let stream = DtStream::new(FrameReader::new(connection, Vec::new()), self.manifest, b"hello");
        Ok(Opened { stream, rtt: Duration::from_millis(1), epoch: 0, pushed: None })
    }

    async fn renew(&self, _: u64) -> Result<(), Failure> {
        Err(Failure::Cancelled)
    }

    fn reroute(&self, _: u64) -> Result<(), Failure> {
        Err(Failure::Cancelled)
    }
}

/// A transfer that is about to begin.
#[derive(Clone, Copy)]
struct Scene {
    size: u64,
    streams: u64,
    /// How long it took to get so far.
    took: Duration,
    /// Whether all blocks are there already.
    is_there: bool,
    is_one_run: bool,
    stall_timeout: Duration,
}

impl Default for Scene {
    fn default() -> Self {
        let (size, streams) = (2 * BLOCK, 2);
        Self { size, streams, took: Duration::ZERO, is_there: false, is_one_run: false, stall_timeout: LONG }
    }
}

fn manifest_of(size: u64) -> Manifest {
    Manifest::new(size, BlockSize::new(BLOCK).unwrap()).unwrap()
}

fn transfer(scene: Scene) -> ActiveTransfer<ReadyMade> {
    let manifest = manifest_of(scene.size);
    let streams = StreamCount::new(scene.streams).unwrap();
    let store = open(&tempfile::tempfile().unwrap(), Engine::Write, manifest.size()).unwrap();
    let mut done = BlockSet::new(&manifest);
    let mut digests: Vec<_> = manifest.blocks().map(|_| None).collect();
    if scene.is_there {
        for block in manifest.blocks() {
            done.insert(block);
            digests[block.index()] = Some(digest(manifest, u64::from(block.value())));
        }
    }
    let place_freed = Arc::new(Notify::new());
    let freed = Arc::clone(&place_freed);
    let freed = Box::new(move || freed.notify_waiters());
    let started = Instant::now().checked_sub(scene.took).unwrap();
    let now = started.elapsed();
    let policy = Policy { stall_timeout: scene.stall_timeout, ..Policy::default() };
    let sink = FileSink::new(manifest, store, None, &done, freed).unwrap();
    ActiveTransfer {
        source: ReadyMade::new(manifest),
        settings: Settings {
            streams,
            md5: ComputeMd5::No,
            verification: Verification::On,
            checksum: None,
            engine: Engine::Write,
            durability: Durability::Cached,
            rate_limit: None,
            is_sender_limited: false,
            retries: crate::schedule::RetryLimit::rounds(3),
            stall_timeout: scene.stall_timeout,
            answer_timeout: LONG,
        },
        manifest,
        sink,
        reader: None,
        events: event::channel().0,
        streams: StreamSet::new(
            streams,
            usize::from(streams.value()),
            crate::schedule::RetryLimit::rounds(3),
        ),
        file_digest: FileDigest::new(None, scene.is_one_run, now),
        completion: Completion::default(),
        counters: Counters::new(0),
        scheduler: Lock::new(Scheduler::new(manifest, done, digests, streams, policy, now)),
        readable: Lock::default(),
        verified_on: Lock::default(),
        place_freed,
        path: PathBuf::from("out"),
        started,
    }
}

fn stream(number: u64) -> StreamId {
    StreamCount::new(255).unwrap().stream(u8::try_from(number).unwrap()).unwrap()
}

async fn connected() -> (Connection, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let receiving = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (Connection::tcp(Arc::new(receiving)), listener.accept().await.unwrap().0)
}

fn content(manifest: Manifest, block: u64) -> Vec<u8> {
    let range = manifest.range(manifest.block(block).unwrap());
    (range.start()..range.end()).map(|at| u8::try_from(at * 31 % 251).unwrap()).collect()
}

fn digest(manifest: Manifest, block: u64) -> RangeDigest {
    let range = manifest.range(manifest.block(block).unwrap());
    RangeDigest::of(manifest.size(), range, &content(manifest, block)).unwrap()
}

fn header(manifest: Manifest, run: BlockRun) -> Vec<u8> {
    let (first, count) = (u64::from(run.first.value()), run.count);
    let length = manifest.run_len(run).unwrap();
    Response::Data(WireRun { first, count, length }).encode().to_vec()
}

/// A complete response with the blocks `first` to `first + count`.
fn data(manifest: Manifest, first: u64, count: u32) -> Vec<u8> {
    let run = manifest.run(first, count).unwrap();
    let blocks = first..first + u64::from(count);
    let digests: Vec<_> = blocks.clone().map(|block| digest(manifest, block)).collect();
    let bytes = blocks.flat_map(|block| content(manifest, block));
    header(manifest, run)
        .into_iter()
        .chain(bytes)
        .chain(encode_trailer(Ok(&digests), Growth::None, count))
        .collect()
}

/// The digests of the file, as a frame.
fn file_digests(manifest: Manifest) -> Vec<u8> {
    let digests: Vec<_> = (0..u64::from(manifest.n_blocks())).map(|block| digest(manifest, block)).collect();
    ReportedDigests { blake3: Blake3Digest::of_blocks(&manifest, &digests).unwrap(), md5: None }.encode()
}
