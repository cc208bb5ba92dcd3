//! Streams of protocol 1: which bytes they carry, and how a stream that cannot be complete ends.

use std::io::Write;
use std::num::NonZeroUsize;

use tokio::net::TcpSocket;

use super::*;
use crate::send::{StreamFailure, StreamRefusal};

/// More than the buffers of a connection hold.
const LARGE: u64 = 64 << 20;

async fn refused(served: &mut Served) -> StreamRefusal {
    served
        .event(
            |event| if let ServerEvent::StreamRefused { reason, .. } = event { Some(*reason) } else { None },
        )
        .await
}

async fn failed(served: &mut Served) -> StreamFailure {
    served
        .event(
            |event| if let ServerEvent::StreamFailed { reason, .. } = event { Some(*reason) } else { None },
        )
        .await
}

/// A stream that is served for certain: one byte of it has arrived.
async fn started(address: SocketAddr, id: u8) -> TcpStream {
    let mut socket = open_stream(address, id).await;
    within(socket.read_u8()).await.unwrap();
    socket
}

fn is_reset(result: &io::Result<Vec<u8>>) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
}

#[tokio::test]
async fn streams_in_any_order_complete_the_transfer_and_close_its_port() {
    let mut served = Served::start().await;
    served.file("f", b"12345678");
    let address = served.transfer("f", 8).await;
    for (id, part) in [(7, ""), (0, "12"), (3, "78"), (4, ""), (2, "56"), (1, "34"), (6, ""), (5, "")] {
        assert_eq!(read_stream(address, id).await.unwrap(), part.as_bytes(), "{id}");
    }
    served.finished().await;
    assert!(is_closed(address).await);
    assert_eq!((served.stats.bytes_sent(), served.stats.transfers_finished()), (8, 1));
    served.stop().await;
}

#[tokio::test]
async fn invalid_ids_get_nothing_and_change_nothing() {
    let mut served = Served::start().await;
    served.sparse("f", LARGE);
    let address = served.transfer("f", 2).await;
    assert_eq!(read_stream(address, 2).await.unwrap(), b"");
    assert_eq!(refused(&mut served).await, StreamRefusal::OutOfRange(2));
    let first = started(address, 0).await;
    assert_eq!(read_stream(address, 0).await.unwrap(), b"");
    assert!(matches!(refused(&mut served).await, StreamRefusal::Busy(id) if id.byte() == 0));
    assert_eq!(read_to_end(first).await.unwrap().len(), 1 << 25);
    served.event(|event| matches!(event, ServerEvent::StreamFinished { .. }).then_some(())).await;
    assert_eq!(read_stream(address, 0).await.unwrap(), b"");
    assert!(matches!(refused(&mut served).await, StreamRefusal::Complete(id) if id.byte() == 0));
    let rest = read_stream(address, 1).await.unwrap();
    assert_eq!(rest.len(), (1 << 25) - 1);
    served.finished().await;
}

#[tokio::test]
async fn foreign_address_gets_nothing() {
    let mut served = Served::start().await;
    served.file("f", b"abc");
    let address = served.transfer("f", 1).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let foreign = within(socket.connect(address)).await.unwrap();
    assert_eq!(read_to_end(foreign).await.unwrap(), b"");
    assert_eq!(refused(&mut served).await, StreamRefusal::ForeignAddress);
    assert_eq!(read_stream(address, 0).await.unwrap(), b"abc");
}

#[tokio::test]
async fn unused_transfer_expires_and_its_port_closes() {
    let mut served = Served::with(|options| options.transfer_expiry(Duration::from_millis(300))).await;
    served.file("f", b"abc");
    let address = served.transfer("f", 2).await;
    assert_eq!(read_stream(address, 0).await.unwrap(), b"ab");
    let expired = served.event(|event| {
        let ServerEvent::TransferExpired { missing, bytes, idle, .. } = event else { return None };
        Some((*missing, *bytes, *idle))
    });
    assert_eq!(expired.await, (1, 2, Duration::from_millis(300)));
    assert!(is_closed(address).await);
}

#[tokio::test]
async fn open_stream_keeps_its_transfer() {
    let expiry = Duration::from_millis(50);
    let mut served = Served::with(|options| options.transfer_expiry(expiry)).await;
    served.sparse("f", LARGE);
    let address = served.transfer("f", 1).await;
    let stream = started(address, 0).await;
    tokio::time::sleep(expiry * 4).await;
    assert_eq!(read_to_end(stream).await.unwrap().len(), (64 << 20) - 1);
    served.finished().await;
}

#[tokio::test]
async fn silent_stream_is_closed_and_disturbs_no_other() {
    let mut served = Served::with(|options| options.request_timeout(Duration::from_millis(500))).await;
    served.file("f", b"abc");
    let address = served.transfer("f", 1).await;
    let silent = connect(address).await.unwrap();
    assert_eq!(refused(&mut served).await, StreamRefusal::NoId);
    assert!(is_reset(&read_to_end(silent).await));
    assert_eq!(read_stream(address, 0).await.unwrap(), b"abc");
}

#[tokio::test]
async fn broken_stream_can_be_connected_again() {
    let mut served = Served::start().await;
    served.sparse("f", LARGE);
    let address = served.transfer("f", 2).await;
    let broken = started(address, 0).await;
    let other = started(address, 1).await;
    broken.set_zero_linger().unwrap();
    drop(broken);
    assert_eq!(failed(&mut served).await, StreamFailure::Disconnected);
    assert_eq!(read_to_end(other).await.unwrap().len(), (1 << 25) - 2);
    assert_eq!(read_stream(address, 0).await.unwrap().len(), (1 << 25) + 1);
    served.finished().await;
}

#[tokio::test]
async fn surplus_bytes_of_a_client_destroy_no_data() {
    let mut served = Served::start().await;
    served.file("f", &vec![9; 300_000]);
    let address = served.transfer("f", 1).await;
    let mut socket = open_stream(address, 0).await;
    socket.write_all(&vec![0; 60_000]).await.unwrap();
    assert_eq!(read_to_end(socket).await.unwrap().len(), 300_000);
    served.finished().await;
}

#[tokio::test]
async fn changed_source_resets_its_streams() {
    let truncated: fn(&PathBuf) = |path| {
        std::fs::File::options().write(true).open(path).unwrap().set_len(LARGE / 2).unwrap();
    };
    let written: fn(&PathBuf) = |path| {
        std::fs::File::options().append(true).open(path).unwrap().write_all(b"x").unwrap();
    };
    for change in [truncated, written] {
        let mut served = Served::start().await;
        let path = served.sparse("f", LARGE);
        let address = served.transfer("f", 2).await;
        let second = started(address, 1).await;
        change(&path);
        assert!(is_reset(&read_to_end(second).await));
        let reason = served.event(|event| {
            if let ServerEvent::TransferFailed { reason, .. } = event { Some(*reason) } else { None }
        });
        assert_eq!(reason.await, TransferFailure::SourceChanged);
        assert!(is_closed(address).await);
    }
}

#[tokio::test]
async fn removed_source_is_still_served() {
    let served = Served::start().await;
    let path = served.file("f", b"abc");
    let address = served.transfer("f", 1).await;
    std::fs::remove_file(path).unwrap();
    assert_eq!(read_stream(address, 0).await.unwrap(), b"abc");
}

#[tokio::test]
async fn stalled_client_is_disconnected() {
    let mut served = Served::with(|options| options.stall_timeout(Duration::from_millis(100))).await;
    served.sparse("f", LARGE);
    let address = served.transfer("f", 1).await;
    let stalled = started(address, 0).await;
    assert_eq!(failed(&mut served).await, StreamFailure::Stalled);
    assert!(is_reset(&read_to_end(stalled).await));
}

/// A stream of 300 kB that is sent as far as the server can see, and for which the client's side has little room.
async fn sent_and_not_received(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut socket = within(socket.connect(address)).await.unwrap();
    socket.write_all(&[0]).await.unwrap();
    within(socket.readable()).await.unwrap();
    socket
}

#[tokio::test]
async fn client_that_stalls_in_the_last_bytes_can_connect_again() {
    let mut served = Served::with(|options| options.stall_timeout(Duration::from_millis(200))).await;
    served.file("f", &vec![9; 300_000]);
    let address = served.transfer("f", 1).await;
    let silent = sent_and_not_received(address).await;
    assert_eq!(failed(&mut served).await, StreamFailure::Disconnected);
    assert_eq!(served.stats.bytes_sent(), 300_000);
    assert_eq!(read_stream(address, 0).await.unwrap().len(), 300_000);
    served.finished().await;
    drop(silent);
}

#[tokio::test]
async fn client_that_breaks_late_can_connect_again() {
    let mut served = Served::start().await;
    served.file("f", &vec![9; 300_000]);
    let address = served.transfer("f", 1).await;
    let slow = sent_and_not_received(address).await;
    // Longer than the time for a client that has received everything to close.
    let early = tokio::time::timeout(Duration::from_millis(2500), served.finished()).await;
    assert!(early.is_err(), "complete before it was received");
    slow.set_zero_linger().unwrap();
    drop(slow);
    assert_eq!(failed(&mut served).await, StreamFailure::Disconnected);
    assert_eq!(read_stream(address, 0).await.unwrap().len(), 300_000);
    served.finished().await;
}

#[tokio::test]
async fn streams_over_the_limit_wait_for_their_turn() {
    let mut served = Served::with(|options| options.max_streams(NonZeroUsize::MIN)).await;
    served.sparse("f", LARGE);
    let address = served.transfer("f", 2).await;
    let first = started(address, 0).await;
    let waiting = tokio::spawn(read_stream(address, 1));
    assert_eq!(read_to_end(first).await.unwrap().len(), 1 << 25);
    assert_eq!(within(waiting).await.unwrap().unwrap().len(), (1 << 25) - 1);
    served.finished().await;
}

#[tokio::test]
async fn silent_connections_are_limited_for_each_address() {
    let mut served = Served::with(|options| options.max_streams(NonZeroUsize::MIN)).await;
    served.file("f", b"abc");
    let transfers = [served.transfer("f", 255).await, served.transfer("f", 255).await];
    // One address has as many as the largest transfer needs.
    let mut silent = Vec::new();
    for n in 0..271 {
        silent.push(connect(transfers[usize::from(n >= 200)]).await.unwrap());
    }
    // The reset may arrive before the connection is used.
    let over = async { read_to_end(connect(transfers[1]).await?).await };
    assert!(is_reset(&over.await));
    assert_eq!(refused(&mut served).await, StreamRefusal::NoCapacity);
    drop(silent);
    assert_eq!(refused(&mut served).await, StreamRefusal::NoId);
    assert_eq!(read_stream(transfers[0], 0).await.unwrap(), b"a");
}
