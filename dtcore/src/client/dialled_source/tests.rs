//! The way to a server whose ports do what the tests want.

use super::*;
use crate::manifest::{BlockSize, Manifest};
use crate::proto::v2::Answer;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// A control port that answers every request with `answer`, and carries streams if it is asked to.
struct Control {
    address: SocketAddr,
    answer: Arc<StdMutex<Answer>>,
    /// How it answers an upgrade.
    upgrade: Arc<StdMutex<&'static str>>,
}

const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\n\r\n";

fn answer(version: u8, port: u16) -> Answer {
    Answer {
        manifest: Manifest::new(1 << 20, BlockSize::new(1 << 16).unwrap()).unwrap(),
        modified: 0,
        version: [version; 16].into(),
        port,
        session: u64::from(version).into(),
        secret: [7; 16].into(),
        md5: None,
        blake3: None,
    }
}

impl Control {
    async fn start(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = Arc::new(StdMutex::new(answer(1, port)));
        let upgrade = Arc::new(StdMutex::new(SWITCHED));
        let (answering, upgrading) = (Arc::clone(&answer), Arc::clone(&upgrade));
        tokio::spawn(async move {
            loop {
                let mut socket = listener.accept().await.unwrap().0;
                let mut request = [0; 4096];
                let n = socket.read(&mut request).await.unwrap();
                let reply = if request[..n].starts_with(b"GET ") {
                    upgrading.lock().unwrap().to_string()
                } else {
                    let body = answering.lock().unwrap().encode();
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
                };
                socket.write_all(reply.as_bytes()).await.unwrap();
                tokio::spawn(async move { socket.read(&mut [0]).await });
            }
        });
        Self { address, answer, upgrade }
    }

    fn access(&self) -> (DialledSource, Options) {
        let answer = self.answer.lock().unwrap().clone();
        let mut data = self.address;
        data.set_port(answer.port);
        let mut options = Options::new(self.address.to_string().parse().unwrap(), "f".into());
        options.connect_timeout = Duration::from_secs(10);
        (DialledSource::new(Session { answer, control: self.address, data }), options)
    }
}

async fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn streams_come_over_the_control_port_where_the_data_port_is_closed() {
    let control = Control::start(closed_port().await).await;
    let (access, options) = control.access();
    let first = access.connect(&options).await.unwrap();
    assert_eq!(first.fell_back.map(|data| data.port()), Some(control.answer.lock().unwrap().port));
    let second = access.connect(&options).await.unwrap();
    assert_eq!(second.fell_back, None, "it is told once");
    assert_eq!(second.socket.peer_addr().unwrap(), control.address);
}

#[tokio::test]
async fn a_busy_control_port_is_no_reason_for_another_session() {
    let control = Control::start(closed_port().await).await;
    let (access, options) = control.access();
    access.got_through(access.connect(&options).await.unwrap().way);
    *control.upgrade.lock().unwrap() = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
    let error = access.connect(&options).await.unwrap_err();
    assert!(error.is_retryable() && matches!(error, TransferError::Unreachable { .. }), "{error:?}");
    *control.upgrade.lock().unwrap() = SWITCHED;
    assert_eq!(access.connect(&options).await.unwrap().way.epoch, 0);
}

#[tokio::test]
async fn many_streams_find_another_way_together() {
    let control = Control::start(closed_port().await).await;
    let (access, options) = control.access();
    let dialled = futures_util::future::join_all((0..8).map(|_| access.connect(&options))).await;
    let told = dialled.into_iter().filter(|dialled| dialled.as_ref().unwrap().fell_back.is_some());
    assert_eq!(told.count(), 1);
}

#[tokio::test]
async fn a_server_that_was_started_anew_is_asked_again() {
    let data = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let control = Control::start(data.local_addr().unwrap().port()).await;
    let (access, options) = control.access();
    let first = access.connect(&options).await.unwrap().way;
    assert_eq!(first.epoch, 0);
    access.got_through(first);
    drop(data);
    let data = TcpListener::bind("127.0.0.1:0").await.unwrap();
    control.answer.lock().unwrap().port = data.local_addr().unwrap().port();
    let again = access.connect(&options).await.unwrap();
    assert_eq!((again.way.epoch, again.fell_back), (1, None));
    assert_eq!(again.socket.peer_addr().unwrap(), data.local_addr().unwrap());
    // Who asks for another session in place of one that is replaced already gets that one.
    assert_eq!(access.renew(first, &options).await.unwrap(), None);
    assert_eq!(access.get().epoch, 1);
    // What was good for a while has come to its end.
    access.got_through(again.way);
    assert_eq!(access.renew(again.way, &options).await.unwrap(), None);
    assert_eq!(access.get().epoch, 2);
}

#[tokio::test]
async fn a_data_port_of_another_server_is_left_for_the_control_port() {
    let data = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let control = Control::start(data.local_addr().unwrap().port()).await;
    let (access, options) = control.access();
    // The session may have been given up while the part file was looked through.
    let first = access.connect(&options).await.unwrap().way;
    assert_eq!(access.renew(first, &options).await.unwrap(), None);
    let second = access.connect(&options).await.unwrap().way;
    assert_eq!((second.epoch, second.route.address()), (1, data.local_addr().unwrap()));
    assert_eq!(access.renew(second, &options).await.unwrap(), Some(data.local_addr().unwrap()));
    assert_eq!(access.renew(second, &options).await.unwrap(), None, "it is told once");
    let third = access.connect(&options).await.unwrap();
    assert_eq!((third.way.epoch, third.fell_back), (1, None));
    assert_eq!(third.socket.peer_addr().unwrap(), control.address);
    // If it is not known there either, only another session helps, by the same route.
    assert_eq!(access.renew(third.way, &options).await.unwrap(), None);
    let last = access.connect(&options).await.unwrap();
    assert_eq!((last.way.epoch, last.socket.peer_addr().unwrap()), (2, control.address));
}

#[tokio::test]
async fn a_session_of_another_version_is_no_way_to_go_on() {
    let control = Control::start(1).await;
    let (access, options) = control.access();
    *control.answer.lock().unwrap() = answer(2, 1);
    assert!(matches!(
        access.renew(access.get().way(), &options).await,
        Err(TransferError::SourceChanged { .. })
    ));
}

/// A data port that somebody listens at, a server whose streams come there, and the way of the first one.
async fn connected() -> (TcpListener, Control, DialledSource, Options, Way) {
    let data = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let control = Control::start(data.local_addr().unwrap().port()).await;
    let (access, options) = control.access();
    let way = access.connect(&options).await.unwrap().way;
    (data, control, access, options, way)
}

#[tokio::test]
async fn a_data_port_on_which_nothing_is_heard_is_left_for_the_control_port() {
    let (data, control, access, options, way) = connected().await;
    assert!(access.is_doubtful(way));
    let left = futures_util::future::join_all((0..8).map(|_| access.leave(way, &options))).await;
    let mut found = left.into_iter().filter_map(|left| match left {
        Elsewhere::Found(dialled) => Some(dialled),
        Elsewhere::Already => None,
        Elsewhere::No => panic!("a stream stays behind"),
    });
    let first = found.next().unwrap();
    assert!(found.next().is_none(), "one stream looks for all");
    assert_eq!(first.fell_back, Some(data.local_addr().unwrap()));
    assert_eq!(first.socket.peer_addr().unwrap(), control.address);
    let second = access.connect(&options).await.unwrap();
    assert_eq!((second.way, second.fell_back), (first.way, None), "it is told once");
    assert_eq!(second.socket.peer_addr().unwrap(), control.address);
    // There is nowhere to go from the control port.
    assert!(!access.is_doubtful(second.way));
    assert!(matches!(access.leave(second.way, &options).await, Elsewhere::No));
}

#[tokio::test]
async fn a_data_port_on_which_another_stream_is_heard_is_not_left() {
    let (_data, _control, access, options, way) = connected().await;
    // The answer comes while the other way is tried.
    let answered = async { access.got_through(way) };
    let (left, ()) = futures_util::future::join(access.leave(way, &options), answered).await;
    assert!(matches!(left, Elsewhere::No), "{left:?}");
    assert!(!access.is_doubtful(way));
    assert!(matches!(access.leave(way, &options).await, Elsewhere::No));
    assert_eq!(access.connect(&options).await.unwrap().way, way);
}

#[tokio::test]
async fn a_data_port_is_not_left_where_the_control_port_carries_no_streams() {
    let (_data, control, access, options, way) = connected().await;
    for answer in ["HTTP/1.1 501 Not Implemented\r\n\r\n", "HTTP/1.1 503 Service Unavailable\r\n\r\n"] {
        *control.upgrade.lock().unwrap() = answer;
        assert!(matches!(access.leave(way, &options).await, Elsewhere::No), "{answer}");
        assert!(access.is_doubtful(way) && access.connect(&options).await.unwrap().way == way, "{answer}");
    }
    *control.upgrade.lock().unwrap() = SWITCHED;
    assert!(matches!(access.leave(way, &options).await, Elsewhere::Found(_)));
}

#[tokio::test]
async fn the_data_port_of_another_session_is_not_judged_by_that_of_the_last() {
    let (_data, _control, access, options, first) = connected().await;
    assert_eq!(access.renew(first, &options).await.unwrap(), None);
    assert!(!access.is_doubtful(first));
    assert!(matches!(access.leave(first, &options).await, Elsewhere::No));
    let second = access.connect(&options).await.unwrap().way;
    assert!(matches!(access.leave(second, &options).await, Elsewhere::Found(_)));
    // Whoever is still there has nothing to wait for.
    assert!(access.is_doubtful(first));
    assert!(matches!(access.leave(first, &options).await, Elsewhere::Already));
}
