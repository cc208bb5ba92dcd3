//! The offer on the connection of the request, and the run that is pushed with it.

use super::*;

impl Served {
    /// Requests `name` with an upgrade; the head of the answer has been read.
    async fn upgraded(&self, name: &str, body: &str) -> (Peer, SessionOffer) {
        let mut socket = connect(self.address).await.unwrap();
        socket.write_all(upgrading(name, body).as_bytes()).await.unwrap();
        self.offered(socket).await
    }

    async fn offered(&self, socket: TcpStream) -> (Peer, SessionOffer) {
        let manifest = Manifest::new(0, crate::manifest::BlockSize::for_file(0)).unwrap();
        let mut stream = Peer { socket, manifest };
        let head = stream.head().await;
        assert!(head.starts_with("http/1.1 101 switching protocols\r\n"), "{head}");
        assert!(
            head.contains("\r\nconnection: upgrade\r\n") && head.contains("\r\nupgrade: dt2\r\n"),
            "{head}"
        );
        let Got::Offer(offer) = stream.got().await else { panic!("no offer") };
        stream.manifest = offer.manifest;
        (stream, offer)
    }
}

fn upgrading(name: &str, body: &str) -> String {
    let n = body.len();
    format!(
        "POST {name} HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: dt2\r\nContent-Length: {n}\r\n\r\n{body}"
    )
}

fn body(from: u64, push: u64) -> String {
    format!("{{\"threads\": 3, \"protocol\": 2, \"from\": {from}, \"push\": {push}}}")
}

#[tokio::test]
async fn offer_and_pushed_run_arrive_without_another_request() {
    let mut served = Served::start().await;
    let content = content(300_000);
    served.file("f", &content);
    for (from, push, run) in [
        (0, 0, None),
        (0, BLOCK - 1, None),
        (0, BLOCK, Some((0, 1))),
        (0, 3 * BLOCK + 1, Some((0, 3))),
        (BLOCK, BLOCK, Some((1, 1))),
        (BLOCK - 1, 1 << 60, Some((0, 5))),
        (4 * BLOCK + 7, BLOCK, Some((4, 1))),
        (300_000, BLOCK, None),
        (u64::MAX, u64::MAX, None),
    ] {
        let (mut stream, offer) = served.upgraded("f", &body(from, push)).await;
        if let Some((first, count)) = run {
            let range = offer.manifest.run_range(offer.manifest.run(first, count).unwrap()).unwrap();
            assert!(stream.received(first, count).await == part(&content, range), "{from} {push}");
        }
        // The stream is like any other, and so is the session.
        assert!(stream.fetch(2, 1).await == content[to_usize(2 * BLOCK)..to_usize(3 * BLOCK)]);
        let mut other = served.open(&offer, 1).await;
        other.fetch(0, 5).await;
        stream.request(&[Request::End]).await;
        assert_eq!((stream.got().await, other.got().await), (Got::End, Got::End));
        served.finished().await;
    }
    assert_eq!(served.stats.streams_opened(), 18);
}

#[tokio::test]
async fn answer_and_offer_arrive_together() {
    let served = Served::start().await;
    served.file("f", b"x");
    let mut socket = connect(served.address).await.unwrap();
    socket.write_all(upgrading("f", &body(0, 1)).as_bytes()).await.unwrap();
    let mut bytes = vec![0; 4096];
    let n = within(socket.read(&mut bytes)).await.unwrap();
    // The first segment holds the answer, the offer, the header of the run and its byte.
    let head = bytes[..n].windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
    let header = bytes[head..].first_chunk().unwrap();
    let Ok(Response::Offer(len)) = Response::decode(header) else { panic!("{header:?}") };
    let data = head + FRAME_LEN + len + PAYLOAD_CHECK_LEN;
    assert!(n >= data + FRAME_LEN, "{n} of {data}");
}

#[tokio::test]
async fn requests_sent_with_the_body_are_answered_after_the_pushed_run() {
    let served = Served::start().await;
    let content = content(300_000);
    served.file("f", &content);
    let manifest = Manifest::new(300_000, crate::manifest::BlockSize::for_file(300_000)).unwrap();
    let mut bytes = upgrading("f", &body(0, BLOCK)).into_bytes();
    for block in 0..5 {
        bytes.extend(run_of(&manifest, block, 1).encode());
    }
    let mut socket = connect(served.address).await.unwrap();
    socket.write_all(&bytes).await.unwrap();
    let (mut stream, _) = served.offered(socket).await;
    stream.received(0, 1).await;
    for block in 0..5 {
        stream.received(block, 1).await;
    }
}

#[tokio::test]
async fn first_stream_can_be_replaced_like_any_other() {
    let mut served = Served::start().await;
    served.sparse("f", LARGE);
    let (mut first, offer) = served.upgraded("f", &body(0, BLOCK)).await;
    first.received(0, 1).await;
    assert_eq!(served.open(&offer, 0).await.got().await.refused(), ErrorCode::NoSuchStream);
    let mut second = served.send(&offer, &hello(&offer, 0, Replacing::Former)).await;
    assert_eq!(first.got().await, Got::End);
    assert_eq!(served.failed().await, StreamFailure::Replaced);
    second.fetch(0, 1).await;
    drop(first);
    drop(second);
    served.stream_finished().await;
    served.open_stream(&offer, 0).await;
}

#[tokio::test]
async fn request_without_both_headers_is_answered_with_json_and_nothing_pushed() {
    let served = Served::start().await;
    served.file("f", &content(1000));
    let body = body(0, 1000);
    for headers in
        ["", "Connection: Upgrade\r\n", "Upgrade: dt2\r\n", "Connection: upgrade\r\nUpgrade: h2c\r\n"]
    {
        let n = body.len();
        let request = format!("POST f HTTP/1.1\r\n{headers}Content-Length: {n}\r\n\r\n{body}");
        let answer = served.exchange(&[request.as_bytes()]).await;
        let (head, json) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        let offer = SessionOffer::decode(json.as_bytes()).unwrap();
        served.open_stream(&offer, 0).await;
    }
    // Protocol 1 has no streams that an upgrade could carry.
    let answer = served.exchange(&[upgrading("f", "{\"threads\": 1}").as_bytes()]).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && parse(&answer).port > 0, "{answer}");
}

#[tokio::test]
async fn refusals_of_upgrades_are_plain_answers() {
    let served = Served::start().await;
    served.file("f", b"abc");
    for (name, body, status) in [
        ("missing", body(0, 1), " 404 "),
        ("f", "{\"protocol\": 2}".to_owned(), " 400 "),
        ("f", body(0, 1).replace("\"from\": 0", "\"from\": -1"), " 400 "),
    ] {
        let answer = served.exchange(&[upgrading(name, &body).as_bytes()]).await;
        assert_eq!(&answer[8..13], status, "{answer}");
        assert!(answer.contains("{\"error\":"), "{answer}");
    }
    assert_eq!(served.stats.transfers_started(), 0);
}

#[tokio::test]
async fn upgrade_beyond_the_limit_of_streams_is_refused() {
    let mut served = Served::with(|options| options.max_streams(NonZeroUsize::MIN)).await;
    served.file("f", b"abc");
    let (mut stream, _) = served.upgraded("f", &body(0, 0)).await;
    let answer = served.exchange(&[upgrading("f", &body(0, 0)).as_bytes()]).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("too many streams"), "{answer}");
    stream.request(&[Request::End]).await;
    served.finished().await;
    served.upgraded("f", &body(0, 0)).await;
}

#[tokio::test]
async fn empty_file_is_its_offer() {
    let mut served = Served::start().await;
    served.file("f", b"");
    let offer = served.session("f", 3).await;
    assert_eq!(offer.manifest.size(), 0);
    served.finished().await;
    assert_eq!(served.open(&offer, 0).await.got().await.refused(), ErrorCode::NoSuchSession);
    let (mut stream, offer) = served.upgraded("f", &body(0, 1000)).await;
    assert_eq!((offer.manifest.size(), stream.got().await), (0, Got::End));
    served.finished().await;
    assert_eq!(served.open(&offer, 1).await.got().await.refused(), ErrorCode::NoSuchSession);
}
