//! How streams, sessions and the server end.

use super::*;

#[tokio::test]
async fn an_end_forgets_the_session_and_closes_its_streams() {
    let mut served = Served::start().await;
    served.file("f", &content(100_000));
    let answer = served.session("f", 3).await;
    let mut idle = Stream2::begun(&answer, 0).await;
    let mut session_end = Stream2::begun(&answer, 1).await;
    session_end.fetch(ByteRange::new(0, 65_536)).await.verified(100_000);
    session_end.demand(&[Demand::End]).await;
    assert_eq!((session_end.got().await, idle.got().await), (Got::End, Got::End));
    let bytes = served.event(|event| {
        if let ServerEvent::TransferFinished { bytes, .. } = event { Some(*bytes) } else { None }
    });
    assert_eq!(bytes.await, 2 * 1024 + 65_536);
    assert_eq!(Stream2::open(&answer, 2).await.got().await.refused(), ErrorCode::NoSuchSession);
    let stats = &served.stats;
    assert_eq!((stats.streams_opened(), stats.streams_finished(), stats.streams_failed()), (2, 2, 0));
    assert_eq!((stats.transfers_finished(), stats.bytes_sent()), (1, 2 * 1024 + 65_536));
}

#[tokio::test]
async fn a_session_expires_when_no_stream_is_open() {
    let expiry = Duration::from_millis(200);
    let mut served = Served::with(|options| options.session_expiry(expiry)).await;
    served.file("f", b"abc");
    let answer = served.session("f", 2).await;
    let mut stream = Stream2::begun(&answer, 0).await;
    tokio::time::sleep(expiry * 3).await;
    stream.fetch(ByteRange::new(0, 3)).await.verified(3);
    drop(stream);
    served.stream_finished().await;
    Stream2::begun(&answer, 1).await;
    let expired = served.event(|event| {
        let ServerEvent::TransferExpired { missing, bytes, idle, .. } = event else { return None };
        Some((*missing, *bytes, *idle))
    });
    assert_eq!(expired.await, (2, 9, expiry));
    assert_eq!(Stream2::open(&answer, 0).await.got().await.refused(), ErrorCode::NoSuchSession);
}

#[tokio::test]
async fn a_connection_counts_until_it_is_closed() {
    let mut served = Served::start().await;
    served.file("f", b"abc");
    let answer = served.session("f", 1).await;
    let mut stream = Stream2::begun(&answer, 0).await;
    let shared = served.shared.clone();
    let n_open = || shared.upgrade().unwrap().data_connections.n_admitted();
    within(stream.socket.write_all(&[0; FRAME_LEN])).await.unwrap();
    assert_eq!(served.failed().await, StreamFailure::BrokenProtocol);
    assert_eq!(n_open(), 1, "its receiver has not closed it");
    drop(stream);
    while n_open() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_idle_stream_is_closed_in_order_and_can_be_opened_again() {
    let mut served = Served::with(|options| options.idle_timeout(Duration::from_millis(200))).await;
    served.file("f", b"abc");
    let answer = served.session("f", 1).await;
    let mut stream = Stream2::begun(&answer, 0).await;
    assert_eq!(stream.got().await, Got::End);
    served.stream_finished().await;
    Stream2::begun(&answer, 0).await;
}

#[tokio::test]
async fn a_receiver_that_takes_nothing_is_cut_off() {
    let mut served = Served::with(|options| options.stall_timeout(Duration::from_millis(200))).await;
    served.sparse("f", LARGE);
    let answer = served.session("f", 1).await;
    let mut stream = Stream2::begun(&answer, 0).await;
    let ranges = [0, 1, 2, 3].map(|i| Demand::Range(ByteRange::with_len(i << 24, 1 << 24)));
    stream.demand(&ranges).await;
    assert_eq!(served.failed().await, StreamFailure::Stalled);
    let read = read_to_end(stream.socket).await;
    assert!(read.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset));
    Stream2::begun(&answer, 0).await;
}

#[tokio::test]
async fn a_stream_that_breaks_can_be_opened_again() {
    let mut served = Served::start().await;
    served.sparse("f", LARGE);
    let answer = served.session("f", 1).await;
    for demands in
        [vec![], [0, 1, 2, 3].map(|i| Demand::Range(ByteRange::with_len(i << 24, 1 << 24))).to_vec()]
    {
        let mut stream = Stream2::begun(&answer, 0).await;
        stream.demand(&demands).await;
        stream.socket.set_zero_linger().unwrap();
        drop(stream);
        assert_eq!(served.failed().await, StreamFailure::Disconnected);
    }
    Stream2::begun(&answer, 0).await;
}

#[tokio::test]
async fn a_receiver_that_closes_within_a_frame_is_broken() {
    let mut served = Served::start().await;
    served.file("f", b"abc");
    let answer = served.session("f", 1).await;
    let mut stream = Stream2::begun(&answer, 0).await;
    stream.socket.write_all(&[1, 0, 0]).await.unwrap();
    drop(stream);
    assert_eq!(served.failed().await, StreamFailure::Disconnected);
    drop(Stream2::begun(&answer, 0).await);
    served.stream_finished().await;
}

#[tokio::test]
async fn a_stopping_server_finishes_ranges_and_says_so() {
    let mut served = Served::with(|options| options.drain_timeout(DEADLINE)).await;
    served.sparse("f", LARGE);
    let answer = served.session("f", 2).await;
    let mut idle = Stream2::begun(&answer, 0).await;
    let mut busy = Stream2::begun(&answer, 1).await;
    let ranges = [0, 1, 2, 3].map(|i| Demand::Range(ByteRange::with_len(i << 24, 1 << 24)));
    busy.demand(&ranges).await;
    busy.answering().await;
    served.shutdown.cancel();
    assert_eq!((idle.got().await, idle.got().await), (Got::Drain, Got::End));
    let mut n = 0;
    let last = loop {
        match busy.got().await {
            got @ Got::Data(..) => got.verified(LARGE),
            other @ (Got::Digests(_) | Got::Wait | Got::Drain | Got::Refused(..) | Got::End | Got::Reset) => {
                break other;
            }
        };
        n += 1;
    };
    assert!((1..4).contains(&n), "{n} ranges");
    assert_eq!((last, busy.got().await), (Got::Drain, Got::End));
    drop((idle, busy));
    let failed = |event: &ServerEvent| {
        if let ServerEvent::TransferFailed { reason, .. } = event { Some(*reason) } else { None }
    };
    assert_eq!(served.event(failed).await, TransferFailure::ShutDown);
    let (address, data) = (served.address, data_port(&answer));
    served.stop().await;
    assert!(is_closed(address).await && is_closed(data).await);
}

#[tokio::test]
async fn what_does_not_end_in_time_is_reset() {
    let served = Served::with(|options| options.drain_timeout(Duration::from_millis(100))).await;
    served.sparse("f", LARGE);
    let answer = served.session("f", 1).await;
    let mut busy = Stream2::begun(&answer, 0).await;
    busy.demand(&[Demand::Range(ByteRange::with_len(0, 1 << 24))]).await;
    busy.answering().await;
    let _mute = Stream2::with(&answer, b"").await;
    served.stop().await;
    assert_eq!(busy.got().await, Got::Reset);
}
