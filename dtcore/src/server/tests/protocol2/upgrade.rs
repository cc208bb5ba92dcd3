//! Streams that come over the control port.

use super::*;

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: dt2\r\n\r\n";

/// Reads the head of the answer.
async fn head(stream: &mut Stream2) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(stream.exactly(1).await.unwrap());
    }
    String::from_utf8(head).unwrap().to_lowercase()
}

#[tokio::test]
async fn a_connection_becomes_a_stream_and_no_longer_counts_as_a_request() {
    let served = Served::with(|options| options.max_connections(NonZeroUsize::MIN)).await;
    let content = content(300_000);
    served.file("f", &content);
    let answer = served.session("f", 2).await;
    // With much or nothing behind the request in the same segment.
    for early in [0, 28, 100_000] {
        let mut bytes = hello(&answer, 0, Replacing::Nothing);
        let demands =
            Demand::Range(ByteRange::new(0, 65_536)).encode().repeat(if early > 28 { 4000 } else { 3 });
        bytes.extend(demands);
        let (first, rest) = bytes.split_at(early.min(bytes.len()));
        let socket = connect(served.address).await.unwrap();
        let mut stream = Stream2 { socket };
        stream.socket.write_all(&[UPGRADE.as_bytes(), first].concat()).await.unwrap();
        let head = head(&mut stream).await;
        assert!(head.starts_with("http/1.1 101 switching protocols\r\n"), "{head}");
        assert!(
            head.contains("\r\nconnection: upgrade\r\n") && head.contains("\r\nupgrade: dt2\r\n"),
            "{head}"
        );
        // Only one connection may be at the door, and this is none any more.
        served.session("f", 1).await;
        if early <= 28 {
            stream.socket.write_all(rest).await.unwrap();
        }
        for _ in 0..3 {
            assert!(stream.got().await.verified(300_000).1 == content[..65_536]);
        }
        drop(stream);
        let mut next = Stream2::with(&answer, &hello(&answer, 0, Replacing::Former)).await;
        next.fetch(ByteRange::new(0, 1024)).await.verified(300_000);
        drop(next);
        while Stream2::begun_if_free(&answer).await.is_none() {}
    }
}

impl Stream2 {
    /// The stream 0 if nobody has it.
    async fn begun_if_free(answer: &Answer) -> Option<()> {
        let mut stream = Self::open(answer, 0).await;
        match stream.fetch(ByteRange::new(0, 1024)).await {
            Got::Data(..) => {
                stream.socket.shutdown().await.unwrap();
                assert_eq!(stream.got().await, Got::End);
                Some(())
            }
            Got::Digests(_) | Got::Wait | Got::Drain | Got::Refused(..) | Got::End | Got::Reset => None,
        }
    }
}

#[tokio::test]
async fn a_stream_that_came_so_is_held_to_the_same_rules() {
    let timeout = Duration::from_millis(300);
    let mut served = Served::with(|options| options.request_timeout(timeout)).await;
    served.file("f", b"abc");
    let answer = served.session("f", 1).await;
    for (bytes, refused) in [
        (hello(&answer, 7, Replacing::Nothing), Some(ErrorCode::NoSuchStream)),
        (vec![1; 28], Some(ErrorCode::BrokenProtocol)),
        (vec![0; 27], None),
    ] {
        let mut stream = Stream2 { socket: connect(served.address).await.unwrap() };
        stream.socket.write_all(&[UPGRADE.as_bytes(), &bytes].concat()).await.unwrap();
        head(&mut stream).await;
        match refused {
            Some(code) => assert_eq!(stream.got().await.refused(), code),
            None => assert!(matches!(stream.got().await, Got::End | Got::Reset)),
        }
    }
    let mut stream = Stream2 { socket: connect(served.address).await.unwrap() };
    let bytes = hello(&answer, 0, Replacing::Nothing);
    stream.socket.write_all(&[UPGRADE.as_bytes(), &bytes].concat()).await.unwrap();
    head(&mut stream).await;
    served.event(|event| matches!(event, ServerEvent::StreamOpened { .. }).then_some(())).await;
    served.shutdown.cancel();
    assert_eq!((stream.got().await, stream.got().await), (Got::Drain, Got::End));
    drop(stream);
    served.stop().await;
}

#[tokio::test]
async fn anything_else_is_not_served() {
    let served = Served::start().await;
    for request in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        "GET / HTTP/1.1\r\nUpgrade: dt2\r\n\r\n",
        "GET /f HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: dt2\r\n\r\n",
        "GET / HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: dt2\r\n\r\n",
        "PUT / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: dt2\r\nContent-Length: 0\r\n\r\n",
    ] {
        let answer = served.exchange(&[request.as_bytes()]).await;
        assert!(answer.get(8..).is_some_and(|answer| answer.starts_with(" 501 ")), "{request}: {answer}");
    }
}
