//! Greetings: who gets a stream, and that a refusal costs nobody anything.

use super::*;

async fn reason(served: &mut Served) -> StreamRefusal {
    let refused = |event: &ServerEvent| {
        if let ServerEvent::StreamRefused { reason, .. } | ServerEvent::ConnectionRefused { reason, .. } =
            event
        {
            Some(*reason)
        } else {
            None
        }
    };
    served.event(refused).await
}

#[tokio::test]
async fn an_unknown_session_and_a_wrong_secret_look_alike() {
    let mut served = Served::start().await;
    served.file("f", b"abc");
    let answer = served.session("f", 1).await;
    let mut secret: [u8; 16] = [0; 16];
    let hex = answer.secret.to_hex();
    for (byte, digits) in secret.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
    }
    secret[15] ^= 1;
    let wrong = Answer { secret: Secret::from(secret), ..answer.clone() };
    let unknown = Answer { session: SessionId::from(0), ..answer.clone() };
    let mut replies = Vec::new();
    for answer in [wrong, unknown] {
        let stream = Stream2::open(&answer, 0).await;
        replies.push(read_to_end(stream.socket).await.unwrap());
        assert_eq!(reason(&mut served).await, StreamRefusal::NoSession);
    }
    assert_eq!(replies[0], Reply::refusal(ErrorCode::NoSuchSession, "no such session"));
    assert_eq!(replies[0], replies[1]);
    Stream2::begun(&answer, 0).await;
}

#[tokio::test]
async fn a_refused_stream_disturbs_no_open_one() {
    let mut served = Served::start().await;
    served.file("f", b"abc");
    let answer = served.session("f", 2).await;
    let mut open = Stream2::begun(&answer, 1).await;
    for (id, expected) in [
        (2, "stream id 2 is out of range"),
        (255, "stream id 255 is out of range"),
        (1, "stream 1 is being served already"),
    ] {
        let mut stream = Stream2::open(&answer, id).await;
        assert_eq!(stream.got().await, Got::Refused(ErrorCode::NoSuchStream, expected.to_owned()));
        assert_eq!(stream.got().await, Got::End);
        assert_eq!(reason(&mut served).await.to_string(), expected);
    }
    open.fetch(ByteRange::new(0, 3)).await.verified(3);
    Stream2::begun(&answer, 0).await;
}

#[tokio::test]
async fn the_flag_ends_the_former_connection() {
    let mut served = Served::with(|options| options.max_streams(NonZeroUsize::MIN)).await;
    served.sparse("f", LARGE);
    let answer = served.session("f", 2).await;
    // Even where there is room for one stream only.
    let mut idle = Stream2::begun(&answer, 0).await;
    let mut busy = Stream2::with(&answer, &hello(&answer, 0, Replacing::Former)).await;
    assert_eq!(idle.got().await, Got::End);
    assert_eq!(served.failed().await, StreamFailure::Replaced);
    // Far more than fits into the connection, so it is in the middle of a range.
    let demands =
        [ByteRange::with_len(0, 16 << 20), ByteRange::with_len(16 << 20, 16 << 20)].map(Demand::Range);
    busy.demand(&demands).await;
    busy.answering().await;
    let mut last = Stream2::with(&answer, &hello(&answer, 0, Replacing::Former)).await;
    assert_eq!(served.failed().await, StreamFailure::Replaced);
    assert!(
        matches!(read_to_end(busy.socket).await, Err(error) if error.kind() == io::ErrorKind::ConnectionReset)
    );
    last.fetch(ByteRange::new(0, 1024)).await.verified(LARGE);
    // Its end does not free the stream of the one that replaced it.
    assert_eq!(Stream2::open(&answer, 0).await.got().await.refused(), ErrorCode::NoSuchStream);
    assert_eq!(Stream2::open(&answer, 1).await.got().await.refused(), ErrorCode::Busy);
    drop(last);
    served.stream_finished().await;
    Stream2::begun(&answer, 1).await;
}

#[tokio::test]
async fn other_versions_and_flags_are_refused() {
    let mut served = Served::start().await;
    served.file("f", b"abc");
    let answer = served.session("f", 1).await;
    for (at, value) in [(25, 1), (25, 3), (26, 2), (27, 1)] {
        let mut bytes = hello(&answer, 0, Replacing::Nothing);
        bytes[at] = value;
        let mut stream = Stream2::with(&answer, &bytes).await;
        assert_eq!(stream.got().await.refused(), ErrorCode::BrokenProtocol);
        assert_eq!(reason(&mut served).await, StreamRefusal::InvalidHello);
    }
    Stream2::begun(&answer, 0).await;
}

#[tokio::test]
async fn late_and_cut_off_greetings_are_closed_without_a_word() {
    let timeout = Duration::from_millis(300);
    let mut served = Served::with(|options| options.request_timeout(timeout)).await;
    served.file("f", b"abc");
    let answer = served.session("f", 1).await;
    let bytes = hello(&answer, 0, Replacing::Nothing);
    for n in [0, 27] {
        let late = Stream2::with(&answer, &bytes[..n]).await;
        assert!(read_to_end(late.socket).await.unwrap_or_default().is_empty());
        assert_eq!(reason(&mut served).await, StreamRefusal::NoHello);
        let mut cut = Stream2::with(&answer, &bytes[..n]).await;
        cut.socket.shutdown().await.unwrap();
        assert!(read_to_end(cut.socket).await.unwrap_or_default().is_empty());
        assert_eq!(reason(&mut served).await, StreamRefusal::NoHello);
    }
    // In pieces, but in time.
    let mut slow = Stream2::with(&answer, &bytes[..1]).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    slow.socket.write_all(&bytes[1..]).await.unwrap();
    slow.fetch(ByteRange::new(0, 3)).await.verified(3);
}

#[tokio::test]
async fn mute_connections_are_limited_and_open_streams_are_not_among_them() {
    let mut served = Served::with(|mut options| {
        options.max_pending_handshakes = NonZeroUsize::new(4).unwrap();
        options
    })
    .await;
    served.file("f", b"abc");
    let answer = served.session("f", 8).await;
    let mut open = Vec::new();
    for id in 0..8 {
        open.push(Stream2::begun(&answer, id).await);
    }
    // Half of them for one address.
    let mute = [Stream2::with(&answer, b"").await, Stream2::with(&answer, b"").await];
    let mut over = Stream2::with(&answer, b"").await;
    assert_eq!(over.got().await.refused(), ErrorCode::Busy);
    assert_eq!(reason(&mut served).await, StreamRefusal::NoCapacity);
    drop(mute);
    assert_eq!(reason(&mut served).await, StreamRefusal::NoHello);
    assert_eq!(Stream2::open(&answer, 0).await.got().await.refused(), ErrorCode::NoSuchStream);
}

#[tokio::test]
async fn sessions_count_against_the_transfers() {
    let mut served = Served::with(|options| options.max_transfers_per_address(NonZeroUsize::MIN)).await;
    served.file("f", b"abc");
    let answer = served.session("f", 1).await;
    let refused = served.exchange(&[&request("f", 1)]).await;
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    let mut stream = Stream2::open(&answer, 0).await;
    stream.demand(&[Demand::End]).await;
    served.finished().await;
    served.session("f", 1).await;
}
