//! Requests: the answers, the refusals, and that none disturbs another.

use std::num::NonZeroUsize;

use super::*;
use crate::digest::Md5Digest;

/// The status of an answer and the reason in its body.
fn refusal(answer: &str) -> (u16, String) {
    let status = answer.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let reason = crate::proto::v1::decode_refusal(body.as_bytes());
    (status, reason.unwrap_or_default())
}

#[tokio::test]
async fn answer_is_that_of_the_original_with_the_size() {
    let served = Served::start().await;
    served.file("f7", b"1234567");
    let answer = served.exchange(&[&request("/f7", 8)]).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let md5 = Md5Digest::of(b"1234567");
    assert_eq!(body, format!("{{\"hash\": \"{md5}\", \"port\": {}}}", parse(&answer).port));
    let head = head.to_lowercase();
    for line in ["dt-size: 7", "connection: close", "content-type: application/json"] {
        assert!(head.lines().any(|other| other == line), "{line}: {head}");
    }
    assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
}

#[tokio::test]
async fn all_spellings_of_a_name_find_its_file() {
    let served = Served::start().await;
    std::fs::create_dir(served.folder.path().join("remote")).unwrap();
    for name in ["remote/path", "a b", "a%20b", "gr\u{fc}n", "x#y?z"] {
        served.file(name, name.as_bytes());
    }
    let escaped = "dt-target: percent-encoded\r\n";
    for (target, header, expected) in [
        ("remote/path", "", "remote/path"),
        ("/remote/path", "", "remote/path"),
        ("//remote//path", "", "remote/path"),
        ("remote%2Fpath", "", "remote/path"),
        ("http://host:9000/remote/path", "", "remote/path"),
        ("a b", "", "a b"),
        ("a%20b", "", "a%20b"),
        ("a%20b", escaped, "a b"),
        ("a%2520b", escaped, "a%20b"),
        ("gr\u{fc}n", "", "gr\u{fc}n"),
        ("gr%C3%BCn", "", "gr\u{fc}n"),
        ("x#y?z", "", "x#y?z"),
    ] {
        let request = format!(
            "POST {target} HTTP/1.1\r\nHost: x\r\n{header}Content-Length: 14\r\n\r\n{{\"threads\": 2}}"
        );
        let answer = served.exchange(&[request.as_bytes()]).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{target}: {answer}");
        assert_eq!(parse(&answer).md5, Md5Digest::of(expected.as_bytes()), "{target}");
    }
}

#[tokio::test]
async fn unusual_clients_are_answered() {
    let served = Served::start().await;
    served.file("f", b"abc");
    let body = b"{\"threads\": 2}";
    let answer =
        served.exchange(&[b"POST f HTTP/1.0\r\nContent-Length: 14\r\n\r\n", &body[..5], &body[5..]]).await;
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
    let chunked = b"POST f HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\ne\r\n{\"threads\": 2}\r\n0\r\n\r\n";
    assert_eq!(parse(&served.exchange(&[chunked]).await).md5, Md5Digest::of(b"abc"));

    let mut half_closed = connect(served.address).await.unwrap();
    half_closed.write_all(&request("f", 2)).await.unwrap();
    half_closed.shutdown().await.unwrap();
    let answer = String::from_utf8(read_to_end(half_closed).await.unwrap()).unwrap();
    assert_eq!(parse(&answer).md5, Md5Digest::of(b"abc"));
}

#[tokio::test]
async fn invalid_requests_are_refused_with_a_reason() {
    let served = Served::start().await;
    served.file("f", b"abc");
    std::fs::create_dir(served.folder.path().join("sub")).unwrap();
    let post = |target: &str, body: &str| {
        format!("POST {target} HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    let good = "{\"threads\": 2}";
    let threads = "\"threads\" must be a whole number from 1 to 255";
    for (request, status, reason) in [
        (post("f", "{\"threads\": 0}"), 400, threads),
        (post("f", "{\"threads\": 256}"), 400, threads),
        (post("f", "{\"threads\": 2.5}"), 400, threads),
        (post("f", "{}"), 400, "the body has no \"threads\""),
        (post("f", "garbage"), 400, "the body is not a JSON object"),
        ("POST f HTTP/1.1\r\n\r\n".to_owned(), 400, "the request has no content-length"),
        (post("f", &" ".repeat(20_000)), 413, "the body is over 16384 bytes"),
        (post("missing", good), 404, "no such file"),
        (post("", good), 404, "it is a directory"),
        (post("/", good), 404, "it is a directory"),
        (post("sub", good), 404, "it is a directory"),
        (post("../etc/passwd", good), 404, "outside the served folder"),
        (post("%2e%2e/etc/passwd", good), 404, "outside the served folder"),
        (post("sub%2f..%2f..%2fetc", good), 404, "outside the served folder"),
        (post("f%00", good), 404, "no such file"),
        (post("f\0", good), 404, "no such file"),
        (post(&"x".repeat(5000), good), 404, "the name is too long"),
        (post(&"x".repeat(65_536), good), 414, "the request target is longer than 16384 bytes"),
        ("GET f HTTP/1.1\r\n\r\n".to_owned(), 501, "only POST is served"),
        ("PUT f HTTP/1.1\r\nContent-Length: 9\r\n\r\n".to_owned(), 501, "only POST is served"),
        ("garbage\r\n\r\n".to_owned(), 400, "the request line is not HTTP"),
        ("POST f HTTP/3.0\r\n\r\n".to_owned(), 505, "the HTTP version is neither 1.0 nor 1.1"),
    ] {
        let answer = served.exchange(&[request.as_bytes()]).await;
        let start = &request[..request.len().min(40)];
        assert_eq!(refusal(&answer), (status, reason.to_owned()), "{start:?}");
    }
    assert_eq!(served.stats.transfers_started(), 0);
}

#[tokio::test]
async fn invalid_header_lines_are_refused_without_a_reason() {
    let served = Served::start().await;
    served.file("f", b"abc");
    let long = |len| format!("A: {}\r\n", "x".repeat(len));
    for (lines, status) in [
        ("A: b\r\n".repeat(63), 200),
        ("A: b\r\n".repeat(64), 431),
        (long(16_000), 200),
        (long(16_400), 431),
        ("A b: c\r\n".to_owned(), 400),
        ("Content-Length: 15\r\n".to_owned(), 400),
    ] {
        let request = format!("POST f HTTP/1.1\r\n{lines}Content-Length: 14\r\n\r\n{{\"threads\": 2}}");
        let answer = served.exchange(&[request.as_bytes()]).await;
        assert_eq!(refusal(&answer), (status, String::new()), "{:?}", &lines[..lines.len().min(40)]);
    }
}

#[tokio::test]
async fn slow_client_times_out_and_disturbs_no_other() {
    let served = Served::with(|options| options.request_timeout(Duration::from_millis(500))).await;
    served.file("f", b"abc");
    let mut late = connect(served.address).await.unwrap();
    late.write_all(b"PO").await.unwrap();
    let mut slow = connect(served.address).await.unwrap();
    slow.write_all(b"POST f HTTP/1.1\r\nContent-Length: 14\r\n\r\n{").await.unwrap();
    served.transfer("f", 1).await;
    for (socket, reason) in
        [(late, "no request was received in time"), (slow, "the body was not received in time")]
    {
        let answer = String::from_utf8(read_to_end(socket).await.unwrap()).unwrap();
        assert_eq!(refusal(&answer), (408, reason.to_owned()));
    }
}

#[tokio::test]
async fn unchanged_file_is_read_once() {
    let served = Served::start().await;
    let path = served.file("f", &[1; 1000]);
    // A file that changed a moment ago is read every time, because it may change again unnoticed.
    let changed = std::fs::metadata(&path).unwrap().modified().unwrap();
    while changed.elapsed().unwrap_or_default() < Duration::from_millis(30) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for _ in 0..3 {
        served.transfer("f", 4).await;
    }
    assert_eq!(served.stats.bytes_hashed(), 1000);
}

#[tokio::test]
async fn fifty_clients_at_once_are_served() {
    let served = Served::start().await;
    served.file("f", &vec![7; 100_000]);
    let all = (0..50).map(|_| async {
        let address = served.transfer("f", 3).await;
        let parts = futures_util::future::join_all((0..3).map(|id| read_stream(address, id))).await;
        parts.into_iter().flat_map(Result::unwrap).collect::<Vec<_>>()
    });
    for bytes in futures_util::future::join_all(all).await {
        assert!(bytes == vec![7; 100_000]);
    }
}

#[tokio::test]
async fn transfers_over_the_limit_are_refused_until_one_ends() {
    let one = NonZeroUsize::MIN;
    let mut served = Served::with(|options| options.max_transfers_per_address(one)).await;
    served.file("f", b"abc");
    let first = served.transfer("f", 1).await;
    let answer = served.exchange(&[&request("f", 1)]).await;
    assert_eq!(refusal(&answer), (503, "too many transfers".to_owned()));
    assert_eq!(read_stream(first, 0).await.unwrap(), b"abc");
    served.finished().await;
    served.transfer("f", 1).await;
}

#[tokio::test]
async fn one_address_has_at_most_half_of_the_transfers() {
    for (total, of_one) in [(1, 1), (2, 1), (5, 2)] {
        let total = NonZeroUsize::new(total).unwrap();
        let served = Served::with(|options| options.max_transfers(total)).await;
        served.file("f", b"abc");
        for _ in 0..of_one {
            served.transfer("f", 1).await;
        }
        let answer = served.exchange(&[&request("f", 1)]).await;
        assert_eq!(refusal(&answer), (503, "too many transfers".to_owned()), "{total}");
    }
}

#[tokio::test]
async fn transfers_stay_within_their_ports() {
    let ports = {
        let free = std::net::TcpListener::bind(("::", 0)).unwrap();
        let port = free.local_addr().unwrap().port();
        PortRange::new(port, port).unwrap()
    };
    let served = Served::with(|options| options.transfer_ports(ports)).await;
    served.file("f", b"abc");
    let first = served.transfer("f", 1).await;
    assert_eq!(PortRange::new(first.port(), first.port()), Ok(ports));
    let answer = served.exchange(&[&request("f", 1)]).await;
    assert_eq!(refusal(&answer), (503, "no transfer port is free".to_owned()));
}

#[tokio::test]
async fn connections_over_the_limit_are_refused() {
    let served = Served::with(|options| options.max_connections(NonZeroUsize::MIN)).await;
    let mut slow = connect(served.address).await.unwrap();
    slow.write_all(b"PO").await.unwrap();
    let limits = served.context.upgrade().unwrap();
    while limits.limits.connections.n_admitted() == 0 {
        tokio::task::yield_now().await;
    }
    drop(limits);
    let answer = served.exchange(&[&request("f", 1)]).await;
    assert_eq!(refusal(&answer), (503, "too many connections".to_owned()));
}

#[tokio::test]
async fn hashing_ends_when_the_client_is_gone() {
    let mut served = Served::start().await;
    // It would take an hour.
    served.sparse("huge", 1 << 40);
    let mut socket = connect(served.address).await.unwrap();
    socket.write_all(&request("huge", 2)).await.unwrap();
    while served.stats.bytes_hashed() == 0 {
        tokio::task::yield_now().await;
    }
    socket.set_zero_linger().unwrap();
    drop(socket);
    let reason = served.event(|event| {
        if let ServerEvent::RequestRefused { reason, .. } = event { Some(reason.clone()) } else { None }
    });
    assert_eq!(reason.await, "the client disconnected");
    served.stop().await;
}

#[tokio::test]
async fn answered_connection_counts_until_it_is_closed() {
    let served = Served::start().await;
    served.file("f", b"abc");
    let mut socket = connect(served.address).await.unwrap();
    socket.write_all(&request("f", 1)).await.unwrap();
    within(socket.read_to_end(&mut Vec::new())).await.unwrap();
    let context = served.context.upgrade().unwrap();
    assert_eq!(context.limits.connections.n_admitted(), 1);
    drop(socket);
    while context.limits.connections.n_admitted() > 0 {
        tokio::task::yield_now().await;
    }
}
