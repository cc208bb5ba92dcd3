//! What `dtserver` says and does in protocol 1, byte for byte, whatever the client does.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use dt_tests::content::{md5, part};
use dt_tests::http::{Afterwards, Answer, exchange};
use dt_tests::original_client::{Ask, Offer, join};
use dt_tests::programs;
use dt_tests::programs::{Programs, Server};
use dt_tests::sockets::{End, Received, connect, connect_from, is_refused, local, read_to_end, try_connect};
use dt_tests::wait::{PATIENCE, until, until_true};
use dt_tests::workspace::Workspace;

const PROGRAMS: Programs = programs!();
const MIB: usize = 1 << 20;

/// A server with `content` as `f`.
fn served(size: usize, options: &[&str]) -> (Workspace, Server, Vec<u8>) {
    let workspace = Workspace::new();
    let content = workspace.serve_pattern("f", 1, size);
    let server = PROGRAMS.serve(&workspace.root()).options(options).ready();
    (workspace, server, content)
}

fn bytes_of(content: &[u8], streams: u8, id: u8) -> &[u8] {
    let range = part(u64::try_from(content.len()).expect("it fits"), streams, id);
    let [start, end] = [range.start, range.end].map(|n| usize::try_from(n).expect("it fits"));
    &content[start..end]
}

fn post(body: &str) -> Vec<u8> {
    format!("POST f HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

#[test]
fn the_answer_to_the_byte() {
    let (_workspace, server, content) = served(1000, &[]);
    for ask in [Ask::new(server.addr, "f", 8), Ask::new(server.addr, "f", 8).http_1_0()] {
        let offer = ask.offer();
        let expected = format!("{{\"hash\": \"{}\", \"port\": {}}}", md5(&content), offer.data.port());
        assert_eq!(offer.answer.body, expected);
        assert_eq!(offer.answer.header("dt-size"), Some("1000"));
        assert_eq!(
            offer.answer.header("transfer-encoding"),
            None,
            "the original's client cannot read chunks"
        );
        assert_eq!(offer.answer.end, End::Closed);
        assert!(offer.answer.status_line.ends_with(" 200 OK"), "{:?}", offer.answer);
        let length = offer.answer.header("content-length").map(str::parse);
        assert!(length.is_none_or(|length| length == Ok(expected.len())), "{:?}", offer.answer);
    }
    let old = Ask::new(server.addr, "f", 8).http_1_0().answer();
    assert_eq!(old.header("connection").unwrap_or("close").to_lowercase(), "close");
}

#[test]
fn refusals_of_bodies() {
    let (_workspace, mut server, _) = served(1000, &[]);
    for body in [
        r#"{"threads": 0}"#,
        r#"{"threads": -3}"#,
        r#"{"threads": 256}"#,
        r#"{"threads": 257}"#,
        r#"{"threads": 4294967297}"#,
        r#"{"threads": 99999999999999999999}"#,
        r#"{"threads": 2.5}"#,
        r#"{"threads": 8.0}"#,
        r#"{"threads": 1e2}"#,
        r#"{"threads": 1e400}"#,
        r#"{"threads": true}"#,
        r#"{"threads": "8"}"#,
        r#"{"threads": null}"#,
        r#"{"threads": [8]}"#,
        r#"{"threads": {}}"#,
        r#"{"threads": NaN}"#,
        r#"{"thread": 8}"#,
        r"{}",
        r"[8]",
        r"8",
        r"null",
        r#""threads""#,
        r#"{"threads": 8"#,
        r#"{"threads": 8}}"#,
        r"{'threads': 8}",
        "\u{feff}{\"threads\": 8}",
        "threads=8",
        "",
        " ",
        "\0",
        &"[".repeat(10_000),
    ] {
        exchange(server.addr, &[&post(body)], Afterwards::Wait).assert_refusal(&[400], body);
    }
    let not_utf8 = b"POST f HTTP/1.1\r\nContent-Length: 15\r\n\r\n{\"threads\": 8\xFF}";
    exchange(server.addr, &[not_utf8], Afterwards::Wait).assert_refusal(&[400], "no UTF-8");
    for body in [r#"{"threads": 1}"#, r#"{"threads":255}"#, "{ \"other\": [1, {}], \"threads\" : 8 }\n"] {
        let answer = exchange(server.addr, &[&post(body)], Afterwards::Wait);
        assert_eq!(answer.status, 200, "{body}: {answer:?}");
    }
    server.assert_alive();
}

#[test]
fn refusals_of_requests() {
    let (_workspace, mut server, _) = served(1000, &[]);
    let long_line =
        format!("POST {} HTTP/1.1\r\nContent-Length: 14\r\n\r\n{{\"threads\": 8}}", "a".repeat(1 << 20));
    let large_body = [post("").replace_length("1000000"), vec![b' '; 1_000_000]].concat();
    let table: [(&str, &[u8], &[u16]); 13] = [
        ("no length", b"POST f HTTP/1.1\r\nHost: x\r\n\r\n", &[400]),
        ("no length, but a body", b"POST f HTTP/1.1\r\nHost: x\r\n\r\n{\"threads\": 8}", &[400]),
        ("no length in HTTP/1.0", b"POST f HTTP/1.0\r\n\r\n", &[400]),
        ("a large length", b"POST f HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\n", &[413]),
        ("a large body", &large_body, &[413]),
        ("GET", b"GET f HTTP/1.1\r\nHost: x\r\n\r\n", &[501]),
        ("PUT", b"PUT /f HTTP/1.1\r\nContent-Length: 0\r\n\r\n", &[501]),
        ("DELETE", b"DELETE /f HTTP/1.1\r\nHost: x\r\n\r\n", &[501]),
        ("OPTIONS", b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", &[501]),
        ("an unknown method", b"FETCH f HTTP/1.1\r\nHost: x\r\n\r\n", &[501]),
        ("a method in lower case", b"post f HTTP/1.1\r\nContent-Length: 14\r\n\r\n{\"threads\": 8}", &[501]),
        ("a long request line", long_line.as_bytes(), &[414, 431]),
        ("no version", b"POST f\r\n\r\n", &[400, 505]),
    ];
    for (what, request, statuses) in table {
        exchange(server.addr, &[request], Afterwards::Wait).assert_refusal(statuses, what);
    }
    let half = b"POST f HTTP/1.1\r\nContent-Length: 14\r\n\r\n{\"thr";
    let stream = connect(server.addr);
    dt_tests::http::send(&stream, &[half], Afterwards::HalfClose);
    let received = read_to_end(&stream);
    let answer = Answer::parse(&received.bytes, received.end);
    assert!(answer.is_none_or(|answer| answer.status == 400), "half a body");

    let head = exchange(server.addr, &[b"HEAD f HTTP/1.1\r\nHost: x\r\n\r\n"], Afterwards::Wait);
    assert_eq!((head.status, head.body.as_str()), (501, ""), "an answer to HEAD has no body");
    server.assert_alive();
}

/// What an HTTP parser refuses before anybody asks what is wanted: the answers are of the same kind.
#[test]
fn refusals_of_heads() {
    let (_workspace, mut server, _) = served(1000, &[]);
    let long_header = format!(
        "POST f HTTP/1.1\r\nX: {}\r\nContent-Length: 14\r\n\r\n{{\"threads\": 8}}",
        "a".repeat(1 << 20)
    );
    let many_headers = format!("POST f HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(10_000));
    let table: [(&str, &[u8], &[u16]); 8] = [
        ("no number as length", b"POST f HTTP/1.1\r\nContent-Length: x\r\n\r\n", &[400]),
        ("a negative length", b"POST f HTTP/1.1\r\nContent-Length: -1\r\n\r\n", &[400]),
        ("two lengths", b"POST f HTTP/1.1\r\nContent-Length: 14\r\nContent-Length: 2\r\n\r\n{}", &[400]),
        (
            "the largest length",
            b"POST f HTTP/1.1\r\nContent-Length: 18446744073709551615\r\n\r\n",
            &[400, 413],
        ),
        ("a long header", long_header.as_bytes(), &[400, 431]),
        ("many headers", many_headers.as_bytes(), &[400, 431]),
        ("no header", b"POST f HTTP/1.1\r\nhello\r\n\r\n", &[400]),
        ("another version", b"POST f HTTP/3.9\r\n\r\n", &[400, 505]),
    ];
    let mut failures = Vec::new();
    for (what, request, statuses) in table {
        let answer = exchange(server.addr, &[request], Afterwards::Wait);
        if !statuses.contains(&answer.status) || !answer.body.starts_with("{\"error\"") {
            failures.push((what, answer.status, answer.body));
        }
    }
    assert!(failures.is_empty(), "each with its status, and a reason in JSON: {failures:?}");
    server.assert_alive();
}

trait ReplaceLength {
    fn replace_length(self, length: &str) -> Vec<u8>;
}

impl ReplaceLength for Vec<u8> {
    fn replace_length(self, length: &str) -> Vec<u8> {
        let text = String::from_utf8(self).expect("a request of ours");
        text.replace("Content-Length: 0", &format!("Content-Length: {length}")).into_bytes()
    }
}

#[test]
fn one_answer_for_each_connection() {
    let (_workspace, server, _) = served(1000, &[]);
    let two = [post(r#"{"threads": 8}"#), post(r#"{"threads": 8}"#)].concat();
    let answer = exchange(server.addr, &[&two], Afterwards::Wait);
    assert_eq!(answer.status, 200);
    assert_eq!(String::from_utf8_lossy(&answer.raw).matches("HTTP/1.").count(), 1, "{answer:?}");
}

#[test]
fn a_request_in_single_bytes() {
    let (_workspace, server, content) = served(1000, &[]);
    let mut stream = connect(server.addr);
    for byte in post(r#"{"threads": 1}"#) {
        stream.write_all(&[byte]).expect("a byte is sent");
    }
    let received = read_to_end(&stream);
    let answer = Answer::parse(&received.bytes, received.end).expect("an answer");
    assert!(answer.status == 200 && answer.body.contains(&md5(&content)), "{answer:?}");
}

#[test]
fn the_parts_to_the_byte() {
    for (size, streams) in [(7, 8), (8, 8), (1, 8), (0, 3), (4095, 11), (MIB, 8), (MIB, 255), (300, 255)] {
        let (_workspace, server, content) = served(size, &[]);
        let offer = Ask::new(server.addr, "f", streams).offer();
        for id in 0..streams {
            let received = offer.stream(id);
            let expected = Received { bytes: bytes_of(&content, streams, id).to_vec(), end: End::Closed };
            assert!(received == expected, "{size} bytes, stream {id} of {streams}: {}", received.bytes.len());
        }
        until_true("the port is closed after the last stream", || is_refused(offer.data));
    }
}

#[test]
fn any_order_of_ids() {
    let (_workspace, server, content) = served(MIB, &[]);
    let scattered: Vec<u8> =
        (0..=254).map(|n: u8| u8::try_from(u32::from(n) * 101 % 255).expect("below 255")).collect();
    for order in [(0..=254).rev().collect(), scattered] {
        let offer = Ask::new(server.addr, "f", 255).offer();
        for id in order {
            assert!(offer.stream(id).bytes == bytes_of(&content, 255, id), "stream {id}");
        }
    }
}

/// Fails unless the server gave the connection nothing.
fn check_nothing(what: &str, received: &Received) {
    assert!(received.bytes.is_empty(), "{what}: {} bytes", received.bytes.len());
}

#[test]
fn duplicate_ids_get_nothing_and_take_nothing() {
    let (_workspace, mut server, content) = served(30 * MIB, &[]);
    let offer = Ask::new(server.addr, "f", 3).offer();
    // Stream 1 is being served while its id comes again, and has ended when it comes a third time.
    let mut running = offer.open(1);
    let mut first = vec![0; 1000];
    running.read_exact(&mut first).expect("it begins");
    for _ in 0..5 {
        check_nothing("while it runs", &offer.stream(1));
    }
    first.extend(read_to_end(&running).bytes);
    assert!(first == bytes_of(&content, 3, 1));
    for _ in 0..5 {
        check_nothing("after its end", &offer.stream(1));
    }
    for id in [2, 0] {
        assert!(offer.stream(id).bytes == bytes_of(&content, 3, id), "stream {id} after the duplicates");
    }
    server.assert_alive();
}

#[test]
fn ids_out_of_range_get_nothing_and_take_nothing() {
    let (_workspace, mut server, content) = served(MIB, &[]);
    let offer = Ask::new(server.addr, "f", 3).offer();
    for id in [3, 4, 100, 255, b'0', b'1'] {
        let received = offer.stream(id);
        check_nothing("out of range", &received);
        assert_eq!(received.end, End::Closed, "id {id}");
    }
    assert!(offer.download() == content);
    server.assert_alive();
}

#[test]
fn connections_that_say_nothing_take_nothing() {
    let (_workspace, server, content) = served(MIB, &[]);
    let offer = Ask::new(server.addr, "f", 3).offer();
    for _ in 0..10 {
        drop(connect(offer.data));
    }
    let silent: Vec<_> = (0..3).map(|_| connect(offer.data)).collect();
    assert!(offer.download() == content);
    drop(silent);
}

#[test]
fn other_addresses_get_nothing_and_take_nothing() {
    let workspace = Workspace::new();
    let content = workspace.serve_pattern("f", 1, MIB);
    // Data ports of a server at one address would be unreachable for the other by themselves.
    let server = PROGRAMS.server().options(["--root".as_ref(), workspace.root().as_os_str()]);
    let server = server.options(["--bind", "0.0.0.0"]).ready();
    let addr = local(server.addr.port());
    let offer = Ask::new(addr, "f", 3).offer();
    for id in 0..3 {
        let mut stranger = connect_from(Ipv4Addr::new(127, 0, 0, 2), offer.data).expect("it connects");
        // The server may have closed already.
        let _ = stranger.write_all(&[id]);
        check_nothing("a stranger", &read_to_end(&stranger));
    }
    assert!(offer.download() == content, "the asker after the strangers");

    // The other way round: who asks from the other address is served there.
    let mut asker = connect_from(Ipv4Addr::new(127, 0, 0, 2), addr).expect("it connects");
    asker.write_all(&post(r#"{"threads": 1}"#)).expect("the request is sent");
    let received = read_to_end(&asker);
    let answer = Answer::parse(&received.bytes, received.end).expect("an answer");
    let json: serde_json::Value = serde_json::from_str(&answer.body).expect("it is JSON");
    let port = json["port"].as_u64().and_then(|port| u16::try_from(port).ok()).expect("it has a port");
    let mut stranger = connect(local(port));
    let _ = stranger.write_all(&[0]);
    check_nothing("a stranger", &read_to_end(&stranger));
    let mut stream = connect_from(Ipv4Addr::new(127, 0, 0, 2), local(port)).expect("it connects");
    stream.write_all(&[0]).expect("the id is sent");
    assert!(read_to_end(&stream).bytes == content);
}

#[test]
fn a_transfer_that_nobody_fetches_expires() {
    let (_workspace, mut server, content) = served(MIB, &["--transfer-expiry", "1s"]);
    let begin = Instant::now();
    let offer = Ask::new(server.addr, "f", 2).offer();
    assert!(!is_refused(offer.data), "it listens at first");
    until_true("the port is closed", || is_refused(offer.data));
    assert!(begin.elapsed() >= Duration::from_millis(900), "it closed after {:?}", begin.elapsed());
    assert!(Ask::new(server.addr, "f", 2).offer().download() == content);
    server.assert_alive();
}

#[test]
fn a_transfer_of_which_one_stream_never_comes_expires() {
    let (_workspace, mut server, content) = served(MIB, &["--transfer-expiry", "1s"]);
    let offer = Ask::new(server.addr, "f", 2).offer();
    assert!(offer.stream(1).bytes == bytes_of(&content, 2, 1));
    until_true("the port is closed", || is_refused(offer.data));
    server.assert_alive();
}

/// A client that is slow but alive: neither the expiry nor the stall timeout ends it, and it holds nobody up.
#[test]
fn a_slow_client() {
    let timeouts = ["--transfer-expiry", "500ms", "--stall-timeout", "2s"];
    let (_workspace, mut server, content) = served(60 * MIB, &timeouts);
    let offer = Ask::new(server.addr, "f", 1).offer();
    let mut stream = offer.open(0);
    let mut received = Vec::new();
    let mut buffer = vec![0; 2 * MIB];
    let begin = Instant::now();
    let mut others = 0;
    while let n @ 1.. = stream.read(&mut buffer).expect("the slow stream goes on") {
        received.extend_from_slice(&buffer[..n]);
        if others < 20 {
            // The other transfers are what slows this one down.
            let other = Ask::new(server.addr, "f", 8).offer();
            assert!(other.stream(7).bytes == bytes_of(&content, 8, 7));
            others += 1;
        }
        if begin.elapsed() < Duration::from_secs(3) {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    assert!(received == content, "{} bytes after {:?}", received.len(), begin.elapsed());
    assert!(begin.elapsed() > Duration::from_secs(1), "it was not slow");
    server.assert_alive();
}

/// The bytes that a process has read so far, whichever way.
fn bytes_read(server: &Server) -> u64 {
    let io = fs::read_to_string(format!("/proc/{}/io", server.process().id())).expect("it may be read");
    let line = io.lines().find_map(|line| line.strip_prefix("rchar: ")).expect("it counts what is read");
    line.parse().expect("it is a number")
}

#[test]
fn an_unchanged_file_is_read_once() {
    let size = 20 * MIB;
    let (workspace, server, content) = served(size, &[]);
    let size = u64::try_from(size).expect("it fits");
    // What has just been written could change again without its times showing it.
    let path = workspace.root().join("f");
    until_true("the file is old enough to be remembered", || {
        let modified = fs::metadata(&path).and_then(|metadata| metadata.modified()).expect("it is there");
        modified.elapsed().is_ok_and(|age| age > Duration::from_millis(200))
    });
    let before = bytes_read(&server);
    let first = Ask::new(server.addr, "f", 1).offer();
    let after_first = bytes_read(&server);
    assert!(after_first - before >= size, "hashing is not seen: the test needs another way to count");
    for _ in 0..5 {
        assert_eq!(Ask::new(server.addr, "f", 1).offer().hash, first.hash);
    }
    let after_others = bytes_read(&server);
    assert!(after_others - after_first < size / 10, "{} bytes read again", after_others - after_first);
    assert_eq!(first.hash, md5(&content));

    // The same size and name, but another file, or other bytes.
    let other = workspace.serve_pattern("f.new", 2, content.len());
    fs::rename(workspace.root().join("f.new"), workspace.root().join("f")).expect("it is replaced");
    assert_eq!(Ask::new(server.addr, "f", 1).offer().hash, md5(&other));
    let third = workspace.serve_pattern("f", 3, content.len());
    assert_eq!(Ask::new(server.addr, "f", 1).offer().hash, md5(&third));

    // A second name of the same file is no other file, once the digest is remembered again.
    fs::hard_link(workspace.root().join("f"), workspace.root().join("g")).expect("a link is made");
    let cost = |name| {
        let before = bytes_read(&server);
        assert_eq!(Ask::new(server.addr, name, 1).offer().hash, md5(&third));
        bytes_read(&server) - before
    };
    until_true("the digest is remembered", || cost("f") < size / 10);
    assert!(cost("g") < size / 10, "one file under two names was hashed twice");
}

/// A change within the same tick of the clock, of the same length: the hash must be that of the new bytes.
#[test]
fn a_file_that_changes_quickly() {
    let (workspace, server, _) = served(100, &[]);
    for seed in 0..200 {
        let content = workspace.serve_pattern("f", seed, 100);
        assert_eq!(Ask::new(server.addr, "f", 1).offer().hash, md5(&content), "version {seed}");
    }
}

#[test]
fn limits_are_refused_with_503() {
    let (_workspace, mut server, content) =
        served(1000, &["--max-transfers", "3", "--transfer-expiry", "1s"]);
    let offers: Vec<Offer> = (0..3).map(|_| Ask::new(server.addr, "f", 2).offer()).collect();
    Ask::new(server.addr, "f", 2).answer().assert_refusal(&[503], "a fourth transfer");
    assert!(offers[0].download() == content, "those that are granted go on");
    let next = until("a free place", || {
        let answer = Ask::new(server.addr, "f", 2).answer();
        (answer.status == 200).then_some(answer)
    });
    assert!(next.body.contains(&md5(&content)));
    server.assert_alive();
}

/// The limit is on what is sent at once: the streams beyond it wait for their turn.
#[test]
fn more_streams_than_are_sent_at_once() {
    let (_workspace, server, content) = served(10 * MIB, &["--max-streams", "2"]);
    assert!(Ask::new(server.addr, "f", 1).offer().download() == content);
    assert!(Ask::new(server.addr, "f", 40).offer().download() == content);
}

#[test]
fn data_ports_from_a_range() {
    // Free at this moment; another process may take them, so several ranges are tried.
    for first in (20_000_u16..30_000).step_by(997) {
        let last = first + 1;
        if [first, last].iter().any(|port| !is_refused(local(*port))) {
            continue;
        }
        let range = format!("{first}-{last}");
        let (_workspace, server, content) = served(1000, &["--transfer-ports", &range]);
        let [one, two] = [(); 2].map(|()| Ask::new(server.addr, "f", 2).offer());
        let mut ports = [one.data.port(), two.data.port()];
        ports.sort_unstable();
        assert_eq!(ports, [first, last]);
        Ask::new(server.addr, "f", 2).answer().assert_refusal(&[503], "no port is left");
        assert!(one.download() == content && two.download() == content);
        // Ports come back, also while the ended connections are remembered by the system.
        until("a port is free again", || {
            (Ask::new(server.addr, "f", 2).answer().status == 200).then_some(())
        });
        return;
    }
    panic!("no two free ports side by side");
}

#[test]
fn many_transfers_at_once() {
    let (_workspace, server, content) = served(MIB, &[]);
    let offers: Vec<Offer> = (0..10).map(|_| Ask::new(server.addr, "f", 4).offer()).collect();
    let mut ports: Vec<SocketAddr> = offers.iter().map(|offer| offer.data).collect();
    ports.sort();
    ports.dedup();
    assert_eq!(ports.len(), 10, "each has its own port");
    // Stream by stream over all transfers, so that each waits for the others.
    let mut files = vec![vec![]; offers.len()];
    for id in 0..4 {
        for (offer, file) in offers.iter().zip(&mut files) {
            file.push(offer.stream(id));
        }
    }
    assert!(files.iter().all(|streams| join(streams) == content));
}

#[test]
fn the_control_port_of_a_stopped_server_is_gone() {
    let (_workspace, server, _) = served(1000, &[]);
    let (addr, offer) = (server.addr, Ask::new(server.addr, "f", 2).offer());
    server.stop(rustix::process::Signal::TERM, PATIENCE).assert_success();
    for port in [addr, offer.data] {
        assert!(try_connect(port).is_err(), "{port} still listens");
    }
}
