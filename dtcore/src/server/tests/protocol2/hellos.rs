//! Hellos: which connections become streams, and that a refusal disturbs no other.

use super::*;

#[tokio::test]
async fn unknown_session_and_wrong_secret_get_the_same_answer() {
    let mut served = Served::start().await;
    served.file("f", b"abc");
    let offer = served.session("f", 1).await;
    let mut secret: [u8; 16] = [0; 16];
    let hex = offer.secret.to_hex();
    for (byte, digits) in secret.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
    }
    secret[15] ^= 1;
    let wrong = SessionOffer { secret: Secret(secret), ..offer.clone() };
    let unknown = SessionOffer { session: SessionId(0), ..offer.clone() };
    let mut replies = Vec::new();
    for wrong in [wrong, unknown] {
        let stream = served.open(&wrong, 0).await;
        replies.push(read_to_end(stream.socket).await.unwrap());
        assert_eq!(served.refused().await, StreamRefusal::NoSession);
    }
    assert_eq!(replies[0], Response::refusal(ErrorCode::NoSuchSession, "no such session"));
    assert_eq!(replies[0], replies[1]);
    served.open_stream(&offer, 0).await;
}

#[tokio::test]
async fn refused_hello_disturbs_no_open_stream() {
    let mut served = Served::start().await;
    served.file("f", b"abc");
    let offer = served.session("f", 2).await;
    let mut open = served.open_stream(&offer, 1).await;
    for (id, expected) in [
        (2, "stream id 2 is out of range"),
        (255, "stream id 255 is out of range"),
        (1, "stream 1 is open already"),
    ] {
        let mut stream = served.open(&offer, id).await;
        assert_eq!(stream.got().await, Got::Refused(ErrorCode::NoSuchStream, expected.to_owned()));
        assert_eq!(stream.got().await, Got::End);
        assert_eq!(served.refused().await.to_string(), expected);
    }
    open.fetch(0, 1).await;
    served.open_stream(&offer, 0).await;
}

#[tokio::test]
async fn flag_replaces_the_former_connection() {
    let mut served = Served::with(|options| options.max_streams(NonZeroUsize::MIN)).await;
    served.sparse("f", LARGE);
    let offer = served.session("f", 2).await;
    // Even where there is room for one stream only.
    let mut idle = served.open_stream(&offer, 0).await;
    let mut busy = served.send(&offer, &hello(&offer, 0, Replacing::Former)).await;
    assert_eq!(idle.got().await, Got::End);
    assert_eq!(served.failed().await, StreamFailure::Replaced);
    // Far more than fits into the connection, so it is in the middle of a run.
    busy.request_much().await;
    busy.answering().await;
    let mut last = served.send(&offer, &hello(&offer, 0, Replacing::Former)).await;
    assert_eq!(served.failed().await, StreamFailure::Replaced);
    assert!(
        matches!(read_to_end(busy.socket).await, Err(error) if error.kind() == io::ErrorKind::ConnectionReset)
    );
    last.fetch(0, 1).await;
    // Its end does not free the stream of the one that replaced it.
    assert_eq!(served.open(&offer, 0).await.got().await.refused(), ErrorCode::NoSuchStream);
    assert_eq!(served.open(&offer, 1).await.got().await.refused(), ErrorCode::Busy);
    drop(last);
    served.stream_finished().await;
    served.open_stream(&offer, 1).await;
}

#[tokio::test]
async fn other_versions_and_flags_are_refused() {
    let mut served = Served::start().await;
    served.file("f", b"abc");
    let offer = served.session("f", 1).await;
    for (at, value) in [(2, 1), (2, 3), (3, 2), (3, 255)] {
        let mut bytes = hello(&offer, 0, Replacing::Nothing);
        bytes[at] = value;
        let mut stream = served.send(&offer, &bytes).await;
        assert_eq!(stream.got().await.refused(), ErrorCode::ProtocolViolation);
        assert_eq!(served.refused().await, StreamRefusal::InvalidHello);
    }
    served.open_stream(&offer, 0).await;
}

#[tokio::test]
async fn late_and_incomplete_hellos_are_closed_without_an_answer() {
    let timeout = Duration::from_millis(300);
    let mut served = Served::with(|options| options.request_timeout(timeout)).await;
    served.file("f", b"abc");
    let offer = served.session("f", 1).await;
    let bytes = hello(&offer, 0, Replacing::Nothing);
    for n in [2, 27] {
        let late = served.send(&offer, &bytes[..n]).await;
        assert!(read_to_end(late.socket).await.unwrap_or_default().is_empty());
        assert_eq!(served.refused().await, StreamRefusal::NoHello);
        let mut cut = served.send(&offer, &bytes[..n]).await;
        cut.socket.shutdown().await.unwrap();
        assert!(read_to_end(cut.socket).await.unwrap_or_default().is_empty());
        assert_eq!(served.refused().await, StreamRefusal::NoHello);
    }
    // In pieces, but in time.
    let mut slow = served.send(&offer, &bytes[..1]).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    slow.socket.write_all(&bytes[1..]).await.unwrap();
    slow.fetch(0, 1).await;
}

#[tokio::test]
async fn silent_connections_are_limited_apart_from_open_streams() {
    let mut served = Served::with(|mut options| {
        options.max_pending_handshakes = NonZeroUsize::new(4).unwrap();
        options
    })
    .await;
    served.file("f", b"abc");
    let offer = served.session("f", 8).await;
    let mut open = Vec::new();
    for id in 0..8 {
        open.push(served.open_stream(&offer, id).await);
    }
    // Half of them for one address.
    let silent = [served.send(&offer, b"").await, served.send(&offer, b"").await];
    let mut over = served.send(&offer, b"").await;
    assert_eq!(over.got().await.refused(), ErrorCode::Busy);
    assert_eq!(served.refused().await, StreamRefusal::NoCapacity);
    drop(silent);
    let context = served.context.upgrade().unwrap();
    while context.limits.pending_handshakes.n_admitted() > 0 {
        tokio::task::yield_now().await;
    }
    drop(context);
    assert_eq!(served.open(&offer, 0).await.got().await.refused(), ErrorCode::NoSuchStream);
}
