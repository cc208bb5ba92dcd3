//! One port: the first two bytes of a connection decide what it is.

use std::num::NonZeroUsize;

use super::*;
use crate::send::StreamRefusal;

impl Served {
    async fn connection_refused(&mut self) -> StreamRefusal {
        self.event(|event| {
            if let ServerEvent::ConnectionRefused { reason, .. } = event { Some(*reason) } else { None }
        })
        .await
    }
}

#[tokio::test]
async fn request_in_any_pieces_is_answered() {
    let served = Served::start().await;
    served.file("f", b"abc");
    let request = request("f", 2);
    for n in [1, 2, 3, request.len() - 1] {
        let mut socket = connect(served.address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        for piece in [&request[..n], &request[n..]] {
            socket.write_all(piece).await.unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let answer = String::from_utf8(read_to_end(socket).await.unwrap()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{n}: {answer}");
    }
}

#[tokio::test]
async fn connection_that_ends_before_two_bytes_is_no_event() {
    let mut served = Served::start().await;
    served.file("f", b"abc");
    for bytes in [&b""[..], b"P", b"\x16"] {
        let mut socket = connect(served.address).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        socket.shutdown().await.unwrap();
        assert_eq!(read_to_end(socket).await.unwrap(), b"");
        let socket = connect(served.address).await.unwrap();
        socket.set_zero_linger().unwrap();
        drop(socket);
    }
    served.transfer("f", 1).await;
    let first = within(served.events.next()).await;
    assert!(matches!(first, Some(ServerEvent::TransferStarted { .. })), "{first:?}");
}

#[tokio::test]
async fn tls_is_closed_and_reported_once() {
    let mut served = Served::start().await;
    for version in [0x00, 0x01, 0x03] {
        let mut socket = connect(served.address).await.unwrap();
        socket.write_all(&[0x16, 0x03, version, 0x02, 0x00, 0x01]).await.unwrap();
        assert!(read_to_end(socket).await.unwrap_or_default().is_empty());
        assert_eq!(served.connection_refused().await, StreamRefusal::Tls);
    }
    assert_eq!((served.stats.streams_refused(), served.stats.requests_refused()), (3, 0));
}

#[tokio::test]
async fn other_first_bytes_are_taken_for_http() {
    let served = Served::start().await;
    for bytes in [&b"\x00\x00"[..], b"\xd7\x00", b"\x16\x16", b"{}", b"\x80\x2e\x01"] {
        let answer = served.exchange(&[bytes]).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{bytes:?}: {answer}");
    }
}

#[tokio::test]
async fn silent_connection_is_closed_without_an_answer() {
    let timeout = Duration::from_millis(300);
    let mut served = Served::with(|options| options.request_timeout(timeout)).await;
    for bytes in [&b""[..], b"P"] {
        let mut socket = connect(served.address).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        assert!(read_to_end(socket).await.unwrap_or_default().is_empty());
        assert_eq!(served.connection_refused().await, StreamRefusal::Silent);
    }
}

#[tokio::test]
async fn silent_streams_of_two_clients_leave_room_for_requests() {
    let served = Served::with(|options| options.max_connections(NonZeroUsize::new(4).unwrap())).await;
    served.file("f", b"abc");
    let mut silent = Vec::new();
    for _ in 0..2 * 255 {
        silent.push(connect(served.address).await.unwrap());
    }
    // Both requests at once.
    let request = request("f", 1);
    let segments = [request.as_slice()];
    let both = [served.exchange(&segments), served.exchange(&segments)];
    for answer in futures_util::future::join_all(both).await {
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
}
