//! Sessions: how many there may be, and which of them make room.

use super::*;

impl Served {
    async fn expired(&mut self) -> (TransferId, Duration) {
        self.event(|event| {
            if let ServerEvent::TransferExpired { transfer, idle, .. } = event {
                Some((*transfer, *idle))
            } else {
                None
            }
        })
        .await
    }
}

#[tokio::test]
async fn open_sessions_count_against_the_transfers() {
    let mut served = Served::with(|options| options.max_transfers_per_address(NonZeroUsize::MIN)).await;
    served.file("f", b"abc");
    let offer = served.session("f", 1).await;
    let mut stream = served.open_stream(&offer, 0).await;
    for request in [
        request("f", 1),
        b"POST f HTTP/1.1\r\nContent-Length: 29\r\n\r\n{\"threads\": 1, \"protocol\": 2}".to_vec(),
    ] {
        let refused = served.exchange(&[&request]).await;
        assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    }
    stream.request(&[Request::End]).await;
    served.finished().await;
    served.session("f", 1).await;
}

#[tokio::test]
async fn session_without_streams_makes_room_longest_idle_first() {
    let two = NonZeroUsize::new(2).unwrap();
    let mut served = Served::with(|options| options.max_transfers_per_address(two)).await;
    served.file("f", b"abc");
    let [first, second] = [served.session("f", 1).await, served.session("f", 1).await];
    // The first one is used last.
    drop(served.open_stream(&first, 0).await);
    served.stream_finished().await;
    let third = served.session("f", 1).await;
    assert_eq!(served.expired().await.0.value(), 2);
    assert_eq!(served.open(&second, 0).await.got().await.refused(), ErrorCode::NoSuchSession);
    // A session with a stream stays.
    let mut open = served.open_stream(&first, 0).await;
    served.session("f", 1).await;
    let (evicted, idle) = served.expired().await;
    assert_eq!(evicted.value(), 3);
    assert!(idle < Duration::from_secs(30), "{idle:?}");
    assert_eq!(served.open(&third, 0).await.got().await.refused(), ErrorCode::NoSuchSession);
    open.fetch(0, 1).await;
    assert_eq!(served.stats.transfers_ended(), 2);
}

#[tokio::test]
async fn many_killed_clients_do_not_keep_the_next_one_out() {
    let mut served =
        Served::with(|options| options.max_transfers_per_address(NonZeroUsize::new(20).unwrap())).await;
    served.sparse("f", LARGE);
    for _ in 0..100 {
        let offer = served.session("f", 2).await;
        let mut stream = served.open(&offer, 0).await;
        stream.request_much().await;
        stream.answering().await;
        stream.socket.set_zero_linger().unwrap();
        drop(stream);
        served.failed().await;
    }
    assert!(served.stats.transfers_ended() >= 80);
    let offer = served.session("f", 1).await;
    served.open_stream(&offer, 0).await;
}

#[tokio::test]
async fn sessions_of_another_address_make_no_room() {
    let two = NonZeroUsize::new(2).unwrap();
    let served = Served::with(|options| options.max_transfers(two)).await;
    served.file("f", b"abc");
    let other = tokio::net::TcpSocket::new_v4().unwrap();
    other.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = within(other.connect(served.address)).await.unwrap();
    let body = "{\"threads\": 1, \"protocol\": 2}";
    let request = format!("POST f HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    other.write_all(request.as_bytes()).await.unwrap();
    let answer = String::from_utf8(read_to_end(other).await.unwrap()).unwrap();
    let theirs = SessionOffer::decode(answer.split_once("\r\n\r\n").unwrap().1.as_bytes()).unwrap();
    for _ in 0..3 {
        served.session("f", 1).await;
    }
    served.open_stream(&theirs, 0).await;
}

#[tokio::test]
async fn finished_transfer_reports_peer_path_and_size() {
    let mut served = Served::start().await;
    std::fs::create_dir(served.folder.path().join("sub")).unwrap();
    served.file("sub/f", &content(100_000));
    let offer = served.session("//sub/f", 1).await;
    let mut stream = served.open_stream(&offer, 0).await;
    stream.request(&[Request::End]).await;
    let finished = served.event(|event| {
        let ServerEvent::TransferFinished { peer, path, size, bytes, .. } = event else { return None };
        Some((peer.ip(), path.clone(), *size, *bytes))
    });
    let expected = (Ipv4Addr::LOCALHOST.into(), PathBuf::from("sub/f"), 100_000, BLOCK);
    assert_eq!(finished.await, expected);
}
