//! The two engines against each other in one process, no matter which of them has dialled: an upload needs no other engine.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backend::fs::SourceFile;
use crate::event;
use crate::event::Report;
use crate::failure::Failure;
use crate::manifest::{BlockSize, Manifest, StreamCount, StreamId};
use crate::num::to_u64;
use crate::proto::v2::{HELLO_LEN, Hello, Replacing, Secret, SessionId, SourceVersion};
use crate::receive::{
    ComputeMd5, DtStream, FrameReader, Offered, Opened, RemoteName, Settings, Source, Verification, run,
};
use crate::send::digest_cache::{DigestCache, MIN_AGE};
use crate::send::{
    Context, FairQueue, Opening, Places, Session, SessionSpec, Share, Tasks, Timeouts, serve_stream,
};
use crate::sink::{Attributes, Clobber, Durability, Engine, Output, Resume, Sink, SourceIdentity};
use crate::transport::Connection;

const TIMEOUT: Duration = Duration::from_secs(20);
const STREAMS: u64 = 4;
const SIZE: usize = (3 << 20) + 12_345;

fn content() -> Vec<u8> {
    (0..SIZE).map(|at| u8::try_from(at * 31 % 251).unwrap()).collect()
}

fn manifest() -> Manifest {
    Manifest::new(to_u64(SIZE), BlockSize::new(64 << 10).unwrap()).unwrap()
}

/// A session that serves the content.
fn session(folder: &Path) -> Arc<Session> {
    let path = folder.join("source");
    std::fs::write(&path, content()).unwrap();
    let tasks = Tasks::default();
    let context = Arc::new(Context {
        digests: DigestCache::new(MIN_AGE, &tasks.tracker, Arc::default()),
        fair_queue: FairQueue::new(),
        timeouts: Timeouts { stall: TIMEOUT, idle: TIMEOUT, session: TIMEOUT },
        rate_limit: None,
        tasks,
        bytes_sent: Arc::new(AtomicU64::new(0)),
    });
    let spec = SessionSpec {
        id: SessionId(7),
        secret: Secret([7; 16]),
        share: Share { peer: Ipv4Addr::LOCALHOST.into(), session: 1 },
        source: Arc::new(SourceFile::new(std::fs::File::open(path).unwrap()).unwrap()),
        manifest: manifest(),
        streams: StreamCount::new(STREAMS).unwrap(),
        on_stream_end: Box::new(|_, _, _| {}),
    };
    Session::new(&context, spec)
}

fn hello(stream: u8, replacing: Replacing) -> Hello {
    Hello { stream, secret: Secret([7; 16]), session: SessionId(7), replacing }
}

async fn read_hello(socket: &mut TcpStream) -> Hello {
    let mut bytes = [0; HELLO_LEN];
    socket.read_exact(&mut bytes).await.unwrap();
    Hello::decode(&bytes).unwrap()
}

/// Serves one stream of the session, no matter which side has dialled.
async fn serve(session: Arc<Session>, socket: TcpStream, hello: Hello) {
    let guard = session.claim(hello.stream, hello.replacing, || Some(Places::unlimited())).unwrap();
    serve_stream(guard, Connection::tcp(Arc::new(socket)), Bytes::new(), Opening::Hello).await;
}

fn opened(socket: TcpStream, hello: &[u8]) -> Opened<DtStream> {
    let reader = FrameReader::new(Connection::tcp(Arc::new(socket)), Vec::new());
    let stream = DtStream::new(reader, manifest(), hello);
    Opened { stream, rtt: Duration::from_millis(1), epoch: 0, pushed: None }
}

fn name() -> RemoteName {
    RemoteName { peer: "peer".to_owned(), file: "source".to_owned() }
}

/// A source that dials, as a client does.
#[derive(Debug)]
struct Dialling {
    name: RemoteName,
    peer: SocketAddr,
}

impl Source for Dialling {
    type Stream = DtStream;

    fn name(&self) -> &RemoteName {
        &self.name
    }

    async fn open(&self, stream: StreamId, replacing: Replacing) -> Result<Opened<DtStream>, Failure> {
        let socket = TcpStream::connect(self.peer).await.unwrap();
        Ok(opened(socket, &hello(stream.byte(), replacing).encode()))
    }

    async fn renew(&self, _: u64) -> Result<(), Failure> {
        Err(Failure::Cancelled)
    }

    fn reroute(&self, _: u64) -> Result<(), Failure> {
        Err(Failure::Cancelled)
    }
}

/// A source whose streams are dialled by the sender, as in an upload.
#[derive(Debug)]
struct Accepting {
    name: RemoteName,
    accepted: Arc<Accepted>,
}

#[derive(Debug, Default)]
struct Accepted {
    streams: Mutex<HashMap<u8, TcpStream>>,
    arrived: Notify,
}

impl Source for Accepting {
    type Stream = DtStream;

    fn name(&self) -> &RemoteName {
        &self.name
    }

    async fn open(&self, stream: StreamId, _: Replacing) -> Result<Opened<DtStream>, Failure> {
        loop {
            let arrived = self.accepted.arrived.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            if let Some(socket) = self.accepted.streams.lock().unwrap().remove(&stream.byte()) {
                return Ok(opened(socket, &[]));
            }
            arrived.await;
        }
    }

    async fn renew(&self, _: u64) -> Result<(), Failure> {
        Err(Failure::Cancelled)
    }

    fn reroute(&self, _: u64) -> Result<(), Failure> {
        Err(Failure::Cancelled)
    }
}

/// Receives from `source` into a file, and compares.
async fn receive(source: impl Source, folder: &Path) -> Report {
    let output = folder.join("output");
    let identity = SourceIdentity {
        manifest: manifest(),
        modified: 1,
        version: SourceVersion([1; 16]),
        remote: [2; 32],
    };
    let offered = Offered {
        identity,
        digests: None,
        known: Vec::new(),
        pushed: None,
        attributes: Attributes::default(),
    };
    let sink = Sink::open(Output::Path(output.clone()), Clobber::Replace, Resume::Allowed).unwrap();
    let settings = Settings {
        streams: StreamCount::new(STREAMS).unwrap(),
        md5: ComputeMd5::No,
        verification: Verification::On,
        checksum: None,
        engine: Engine::Auto,
        durability: Durability::Cached,
        rate_limit: None,
        is_sender_limited: false,
        retries: crate::schedule::RetryLimit::rounds(3),
        stall_timeout: TIMEOUT,
        answer_timeout: TIMEOUT,
    };
    let (events, _observer) = event::channel();
    let running = run(source, offered, sink, settings, events, Instant::now(), CancellationToken::new());
    let report = tokio::time::timeout(TIMEOUT, running).await.unwrap().unwrap();
    assert!(std::fs::read(output).unwrap() == content());
    report
}

#[tokio::test]
async fn receiver_that_dialled_receives_into_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let (session, listener) = (session(folder.path()), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let peer = listener.local_addr().unwrap();
    let accepting = tokio::spawn(async move {
        loop {
            let (mut socket, session) = (listener.accept().await.unwrap().0, Arc::clone(&session));
            tokio::spawn(async move {
                let hello = read_hello(&mut socket).await;
                serve(session, socket, hello).await;
            });
        }
    });
    let report = receive(Dialling { name: name(), peer }, folder.path()).await;
    assert_eq!((report.bytes, report.recovery.streams_lost), (to_u64(SIZE), 0));
    accepting.abort();
}

#[tokio::test]
async fn receiver_that_was_dialled_receives_into_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let (session, listener) = (session(folder.path()), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let receiver = listener.local_addr().unwrap();
    let accepted = Arc::<Accepted>::default();
    let arriving = Arc::clone(&accepted);
    let accepting = tokio::spawn(async move {
        loop {
            let mut socket = listener.accept().await.unwrap().0;
            let hello = read_hello(&mut socket).await;
            arriving.streams.lock().unwrap().insert(hello.stream, socket);
            arriving.arrived.notify_waiters();
        }
    });
    for stream in 0..u8::try_from(STREAMS).unwrap() {
        let session = Arc::clone(&session);
        tokio::spawn(async move {
            let hello = hello(stream, Replacing::Nothing);
            let mut socket = TcpStream::connect(receiver).await.unwrap();
            socket.write_all(&hello.encode()).await.unwrap();
            serve(session, socket, hello).await;
        });
    }
    let report = receive(Accepting { name: name(), accepted }, folder.path()).await;
    assert_eq!((report.bytes, report.recovery.streams_lost), (to_u64(SIZE), 0));
    accepting.abort();
}
