//! Streams that begin with an HTTP upgrade, for proxies.

use super::*;

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: dt2\r\n\r\n";

impl Peer {
    /// Reads the head of an answer, in lower case.
    pub(super) async fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(self.exactly(1).await.unwrap());
        }
        String::from_utf8(head).unwrap().to_lowercase()
    }
}

impl Served {
    /// Whether stream 0 is free; it is used if it is.
    async fn is_free(&self, offer: &SessionOffer) -> bool {
        let mut stream = self.open(offer, 0).await;
        stream.request_run(0, 1).await;
        let got = stream.got().await;
        stream.socket.shutdown().await.unwrap();
        matches!(got, Got::Data(..)) && stream.got().await == Got::End
    }
}

#[tokio::test]
async fn upgraded_connection_is_a_stream_and_no_http_connection() {
    let served = Served::with(|options| options.max_connections(NonZeroUsize::MIN)).await;
    let content = content(300_000);
    served.file("f", &content);
    let offer = served.session("f", 2).await;
    // With much or nothing after the request in the same segment.
    for early in [0, 28, 100_000] {
        let mut bytes = hello(&offer, 0, Replacing::Nothing);
        let n = if early > 28 { 4000 } else { 3 };
        bytes.extend(run_of(&offer.manifest, 0, 1).encode().repeat(n));
        let (first, rest) = bytes.split_at(early.min(bytes.len()));
        let mut stream = served.send(&offer, &[UPGRADE.as_bytes(), first].concat()).await;
        let head = stream.head().await;
        assert!(head.starts_with("http/1.1 101 switching protocols\r\n"), "{head}");
        assert!(
            head.contains("\r\nconnection: upgrade\r\n") && head.contains("\r\nupgrade: dt2\r\n"),
            "{head}"
        );
        // The limit is one HTTP connection, and this one no longer counts.
        served.session("f", 1).await;
        if early <= 28 {
            stream.socket.write_all(rest).await.unwrap();
        }
        for _ in 0..3 {
            assert!(stream.received(0, 1).await == content[..65_536]);
        }
        drop(stream);
        let mut next = served.send(&offer, &hello(&offer, 0, Replacing::Former)).await;
        next.fetch(0, 1).await;
        drop(next);
        while !served.is_free(&offer).await {}
    }
}

#[tokio::test]
async fn upgraded_stream_obeys_the_same_rules() {
    let timeout = Duration::from_millis(300);
    let mut served = Served::with(|options| options.request_timeout(timeout)).await;
    served.file("f", b"abc");
    let offer = served.session("f", 1).await;
    let mut unknown_version = hello(&offer, 0, Replacing::Nothing);
    unknown_version[2] = 9;
    for (bytes, refused) in [
        (hello(&offer, 7, Replacing::Nothing), Some(ErrorCode::NoSuchStream)),
        (unknown_version, Some(ErrorCode::ProtocolViolation)),
        (vec![1; 28], Some(ErrorCode::ProtocolViolation)),
        (vec![0; 27], None),
    ] {
        let mut stream = served.send(&offer, &[UPGRADE.as_bytes(), &bytes].concat()).await;
        stream.head().await;
        match refused {
            Some(code) => assert_eq!(stream.got().await.refused(), code),
            None => assert!(matches!(stream.got().await, Got::End | Got::Reset)),
        }
    }
    let bytes = hello(&offer, 0, Replacing::Nothing);
    let mut stream = served.send(&offer, &[UPGRADE.as_bytes(), &bytes].concat()).await;
    stream.head().await;
    served.event(|event| matches!(event, ServerEvent::StreamOpened { .. }).then_some(())).await;
    served.shutdown.cancel();
    assert_eq!((stream.got().await, stream.got().await), (Got::Drain, Got::End));
    drop(stream);
    served.stop().await;
}

#[tokio::test]
async fn other_methods_and_upgrades_are_refused() {
    let served = Served::start().await;
    for request in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        "GET / HTTP/1.1\r\nUpgrade: dt2\r\n\r\n",
        "GET /f HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: dt2\r\n\r\n",
        "GET / HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: dt2\r\n\r\n",
        "PUT / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    ] {
        let answer = served.exchange(&[request.as_bytes()]).await;
        assert!(answer.get(8..).is_some_and(|answer| answer.starts_with(" 501 ")), "{request}: {answer}");
    }
    let upload = "PUT /f HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: dt2\r\nContent-Length: 0\r\n\r\n";
    let answer = served.exchange(&[upload.as_bytes()]).await;
    assert!(answer.contains(" 403 ") && answer.contains("uploads are not permitted"), "{answer}");
}
