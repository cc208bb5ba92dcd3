//! Sessions without a server: both sides of a connection can send.

use std::io::Write;
use std::net::Ipv4Addr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::digest_cache::{DigestCache, MIN_AGE};
use super::event::{SessionEnd, StreamFailure};
use super::{
    Context, FairQueue, Opening, Places, Session, SessionSpec, Share, Tasks, Timeouts, refuse, serve_stream,
};
use crate::backend::fs::SourceFile;
use crate::manifest::{BlockSize, Manifest, StreamCount};
use crate::num::{to_u64, to_usize};
use crate::proto::v2::{
    ErrorCode, FRAME_LEN, PAYLOAD_CHECK_LEN, Push, Replacing, Request, Response, Secret, SessionId,
    SessionOffer, TRAILER_LEN,
};
use crate::transport::Connection;

const TIMEOUT: Duration = Duration::from_secs(10);

fn context() -> Arc<Context> {
    let tasks = Tasks::default();
    let digests = DigestCache::new(MIN_AGE, &tasks.tracker, Arc::default());
    let timeouts = Timeouts { stall: TIMEOUT, idle: TIMEOUT, session: TIMEOUT };
    let bytes_sent = Arc::new(AtomicU64::new(0));
    Arc::new(Context { digests, fair_queue: FairQueue::new(), timeouts, rate_limit: None, tasks, bytes_sent })
}

/// How the streams of a session ended, in this order.
type Ends = Arc<Mutex<Vec<(u8, u64, Result<(), StreamFailure>)>>>;

/// A session for a file with this content.
fn session(content: &[u8]) -> (Arc<Session>, Ends) {
    let (spec, ends) = spec(content);
    (Session::new(&context(), spec), ends)
}

fn spec(content: &[u8]) -> (SessionSpec, Ends) {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    let ends = Ends::default();
    let observed = Arc::clone(&ends);
    let spec = SessionSpec {
        id: SessionId(7),
        secret: Secret([7; 16]),
        share: Share { peer: Ipv4Addr::LOCALHOST.into(), session: 1 },
        source: Arc::new(SourceFile::new(file).unwrap()),
        manifest: Manifest::new(to_u64(content.len()), BlockSize::new(BlockSize::MIN).unwrap()).unwrap(),
        streams: StreamCount::default(),
        on_stream_end: Box::new(move |stream, bytes, result| {
            observed.lock().unwrap().push((stream.byte(), bytes, result));
        }),
    };
    (spec, ends)
}

/// Both ends of a connection: the one that dialled, and the one that accepted.
async fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let dialled = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (dialled, listener.accept().await.unwrap().0)
}

#[tokio::test]
async fn session_ends_when_replaced_connections_have_ended_too() {
    let (session, _) = session(b"x");
    let running = tokio::spawn({
        let session = Arc::clone(&session);
        async move { session.run().await }
    });
    let former = session.claim(0, Replacing::Nothing, || Some(Places::unlimited())).unwrap();
    // It takes over the places of the former one.
    let last = session.claim(0, Replacing::Former, || None).unwrap();
    assert!(former.claim.stop.is_cancelled() && former.is_replaced());
    assert!(Arc::ptr_eq(&former.claim.connection, &last.claim.connection));
    assert_eq!(session.idle_since(), None);
    session.end(SessionEnd::Finished);
    drop(last);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!running.is_finished());
    drop(former);
    assert_eq!(timeout(TIMEOUT, running).await.unwrap().unwrap(), SessionEnd::Finished);
}

#[tokio::test]
async fn only_an_idle_session_can_be_evicted() {
    let (session, _) = session(b"x");
    let guard = session.claim(0, Replacing::Nothing, || Some(Places::unlimited())).unwrap();
    assert!(!session.end_if_idle(SessionEnd::Evicted));
    drop(guard);
    assert!(session.end_if_idle(SessionEnd::Evicted));
    assert!(!session.end_if_idle(SessionEnd::Evicted));
    assert_eq!(session.run().await, SessionEnd::Evicted);
    assert!(session.claim(0, Replacing::Nothing, || Some(Places::unlimited())).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_hashed_for_a_receiver_that_has_gone() {
    let file = tempfile::tempfile().unwrap();
    // It takes minutes to read.
    file.set_len(1 << 38).unwrap();
    let context = context();
    let spec = SessionSpec {
        source: Arc::new(SourceFile::new(file).unwrap()),
        manifest: Manifest::new(1 << 38, BlockSize::for_file(1 << 38)).unwrap(),
        ..spec(b"x").0
    };
    let session = Session::new(&context, spec);
    let guard = session.claim(0, Replacing::Nothing, || Some(Places::unlimited())).unwrap();
    let hashing = tokio::spawn({
        let session = Arc::clone(&session);
        async move { session.hash_ahead().await }
    });
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(!hashing.is_finished() && session.digest_progress() > 0);
    drop(guard);
    timeout(TIMEOUT, hashing).await.unwrap().unwrap();
    // The job ends soon after nobody waits for it.
    context.tasks.tracker.close();
    timeout(TIMEOUT, context.tasks.tracker.wait()).await.unwrap();
}

/// The side that dialled offers a file, as an upload does.
#[tokio::test]
async fn dialling_side_can_send() {
    let content: Vec<u8> = (0..100_000_usize).map(|i| u8::try_from(i * 31 % 251).unwrap()).collect();
    let (session, ends) = session(&content);
    let (dialled, mut accepted) = connection().await;
    let guard = session.claim(0, Replacing::Nothing, || Some(Places::unlimited())).unwrap();
    let opening = Opening::Offer(b"preface".to_vec(), Push { from: 0, length: 1 << 20 });
    let connection = Connection::tcp(Arc::new(dialled));
    let sending = tokio::spawn(serve_stream(guard, connection, Bytes::new(), opening));
    let receiving = async {
        let mut preface = [0; 7];
        accepted.read_exact(&mut preface).await.unwrap();
        assert_eq!(&preface, b"preface");
        let mut header = [0; FRAME_LEN];
        accepted.read_exact(&mut header).await.unwrap();
        let Ok(Response::Offer(len)) = Response::decode(&header) else { panic!("{header:?}") };
        let mut json = vec![0; len + PAYLOAD_CHECK_LEN];
        accepted.read_exact(&mut json).await.unwrap();
        let offer = SessionOffer::decode(&json[..len]).unwrap();
        assert_eq!(offer.manifest, session.spec.manifest);
        accepted.read_exact(&mut header).await.unwrap();
        let Ok(Response::Data(run)) = Response::decode(&header) else { panic!("{header:?}") };
        assert_eq!((run.first, run.count, run.length), (0, 7, 100_000));
        let mut bytes = vec![0; to_usize(run.length)];
        accepted.read_exact(&mut bytes).await.unwrap();
        assert!(bytes == content);
        accepted.read_exact(&mut vec![0; TRAILER_LEN + 7 * 32]).await.unwrap();
        accepted.write_all(&Request::End.encode()).await.unwrap();
        assert_eq!(accepted.read(&mut [0]).await.unwrap(), 0);
        drop(accepted);
    };
    timeout(TIMEOUT, receiving).await.unwrap();
    timeout(TIMEOUT, sending).await.unwrap().unwrap();
    assert_eq!(*ends.lock().unwrap(), [(0, 100_000, Ok(()))]);
    assert_eq!(session.run().await, SessionEnd::Finished);
}

#[tokio::test]
async fn refusal_waits_for_room() {
    let (mut dialled, accepted) = connection().await;
    let connection = Connection::tcp(Arc::new(accepted));
    let mut expected = Vec::new();
    // Until the bytes in flight have arrived, too.
    while timeout(Duration::from_millis(100), connection.writable()).await.is_ok() {
        while let Ok(n) = connection.try_write(&[7; 16 << 10]) {
            expected.resize(expected.len() + n, 7);
        }
    }
    expected.extend(Response::refusal(ErrorCode::Busy, "full"));
    let mut received = Vec::new();
    let context = context();
    let refusing = refuse(&context, &connection, ErrorCode::Busy, "full");
    let reading = async {
        dialled.read_to_end(&mut received).await.unwrap();
        drop(dialled);
    };
    tokio::join!(refusing, reading);
    assert!(received == expected, "{} of {} bytes", received.len(), expected.len());
}
