//! How streams, sessions and the server end.

use super::*;

#[tokio::test]
async fn end_forgets_the_session_and_closes_its_streams() {
    let mut served = Served::start().await;
    served.file("f", &content(100_000));
    let offer = served.session("f", 3).await;
    let mut idle = served.open_stream(&offer, 0).await;
    let mut last = served.open_stream(&offer, 1).await;
    last.fetch(0, 2).await;
    last.request(&[Request::End]).await;
    assert_eq!((last.got().await, idle.got().await), (Got::End, Got::End));
    let bytes = served.event(|event| {
        if let ServerEvent::TransferFinished { bytes, .. } = event { Some(*bytes) } else { None }
    });
    assert_eq!(bytes.await, 2 * 65_536 + 100_000);
    assert_eq!(served.open(&offer, 2).await.got().await.refused(), ErrorCode::NoSuchSession);
    let stats = &served.stats;
    assert_eq!((stats.streams_opened(), stats.streams_finished(), stats.streams_failed()), (2, 2, 0));
    assert_eq!((stats.transfers_finished(), stats.bytes_sent()), (1, 2 * 65_536 + 100_000));
}

#[tokio::test]
async fn session_expires_when_no_stream_is_open() {
    let expiry = Duration::from_millis(200);
    let mut served = Served::with(|options| options.session_expiry(expiry)).await;
    served.file("f", b"abc");
    let offer = served.session("f", 2).await;
    let mut stream = served.open_stream(&offer, 0).await;
    tokio::time::sleep(expiry * 3).await;
    stream.fetch(0, 1).await;
    drop(stream);
    served.stream_finished().await;
    served.open_stream(&offer, 1).await;
    let expired = served.event(|event| {
        let ServerEvent::TransferExpired { missing, bytes, idle, .. } = event else { return None };
        Some((*missing, *bytes, *idle))
    });
    assert_eq!(expired.await, (2, 9, expiry));
    assert_eq!(served.open(&offer, 0).await.got().await.refused(), ErrorCode::NoSuchSession);
}

#[tokio::test]
async fn connection_counts_until_it_is_closed() {
    let mut served = Served::start().await;
    served.file("f", b"abc");
    let offer = served.session("f", 1).await;
    let mut stream = served.open_stream(&offer, 0).await;
    let context = served.context.clone();
    let n_open = || context.upgrade().unwrap().limits.data_connections.n_admitted();
    within(stream.socket.write_all(&[0; FRAME_LEN])).await.unwrap();
    assert_eq!(served.failed().await, StreamFailure::BrokenProtocol);
    assert_eq!(n_open(), 1, "its receiver has not closed it");
    drop(stream);
    while n_open() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn idle_stream_is_closed_in_order_and_can_be_opened_again() {
    let mut served = Served::with(|options| options.idle_timeout(Duration::from_millis(200))).await;
    served.file("f", b"abc");
    let offer = served.session("f", 1).await;
    let mut stream = served.open_stream(&offer, 0).await;
    assert_eq!(stream.got().await, Got::End);
    served.stream_finished().await;
    served.open_stream(&offer, 0).await;
}

#[tokio::test]
async fn stalled_receiver_is_disconnected() {
    let mut served = Served::with(|options| options.stall_timeout(Duration::from_millis(200))).await;
    served.sparse("f", LARGE);
    let offer = served.session("f", 1).await;
    let mut stream = served.open_stream(&offer, 0).await;
    stream.request_much().await;
    assert_eq!(served.failed().await, StreamFailure::Stalled);
    let read = read_to_end(stream.socket).await;
    assert!(read.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset));
    served.open_stream(&offer, 0).await;
}

#[tokio::test]
async fn broken_stream_can_be_opened_again() {
    let mut served = Served::start().await;
    served.sparse("f", LARGE);
    let offer = served.session("f", 1).await;
    for is_busy in [false, true] {
        let mut stream = served.open_stream(&offer, 0).await;
        if is_busy {
            stream.request_much().await;
        }
        stream.socket.set_zero_linger().unwrap();
        drop(stream);
        assert_eq!(served.failed().await, StreamFailure::Disconnected);
    }
    served.open_stream(&offer, 0).await;
}

#[tokio::test]
async fn close_within_a_request_is_a_failure() {
    let mut served = Served::start().await;
    served.file("f", b"abc");
    let offer = served.session("f", 1).await;
    let mut stream = served.open_stream(&offer, 0).await;
    stream.socket.write_all(&[1, 0, 0]).await.unwrap();
    drop(stream);
    assert_eq!(served.failed().await, StreamFailure::Disconnected);
    drop(served.open_stream(&offer, 0).await);
    served.stream_finished().await;
}

#[tokio::test]
async fn draining_server_finishes_the_run_and_sends_drain() {
    let mut served = Served::with(|options| options.drain_timeout(DEADLINE)).await;
    served.sparse("f", LARGE);
    let offer = served.session("f", 2).await;
    let mut idle = served.open_stream(&offer, 0).await;
    let mut busy = served.open_stream(&offer, 1).await;
    busy.request_much().await;
    busy.answering().await;
    served.shutdown.cancel();
    assert_eq!((idle.got().await, idle.got().await), (Got::Drain, Got::End));
    let mut n = 0;
    let last = loop {
        let got = busy.got().await;
        let Got::Data(_, bytes, Ok(_)) = got else { break got };
        assert_eq!(bytes.len(), 16 << 20);
        n += 1;
    };
    assert!((1..4).contains(&n), "{n} runs");
    assert_eq!((last, busy.got().await), (Got::Drain, Got::End));
    drop((idle, busy));
    let failed = |event: &ServerEvent| {
        if let ServerEvent::TransferFailed { reason, .. } = event { Some(*reason) } else { None }
    };
    assert_eq!(served.event(failed).await, TransferFailure::ShutDown);
    let address = served.address;
    served.stop().await;
    assert!(is_closed(address).await);
}

#[tokio::test]
async fn streams_are_reset_after_the_drain_timeout() {
    let served = Served::with(|options| options.drain_timeout(Duration::from_millis(100))).await;
    served.sparse("f", LARGE);
    let offer = served.session("f", 1).await;
    let mut busy = served.open_stream(&offer, 0).await;
    busy.request_run(0, LONGEST).await;
    busy.answering().await;
    let _mute = served.send(&offer, b"").await;
    served.stop().await;
    assert_eq!(busy.got().await, Got::Reset);
}
