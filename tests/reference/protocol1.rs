//! The reference client of protocol 1 against the reference server.

use std::time::Duration;

use dt_testkit::content::md5;
use dt_testkit::original_client::{Ask, join};
use dt_testkit::original_server::{Answering, Fault, OriginalServer, Script, StreamEnd, Streams};
use dt_testkit::sockets::{End, is_refused};
use dt_testkit::wait::until_true;
use dt_testkit::workspace::Workspace;

#[test]
fn files_of_all_sizes_arrive() {
    let workspace = Workspace::new();
    for (size, streams) in [(0, 3), (1, 8), (7, 8), (8, 8), (4095, 11), (1 << 20, 255)] {
        let content = workspace.serve_pattern("f", 1, size);
        let server = OriginalServer::start(&workspace.root().join("f"), Script::swift());
        let offer = Ask::new(server.addr, "dir/f7", streams).body_apart().patient().offer();
        assert!(offer.download() == content, "{size} bytes over {streams} streams");
        let mut ids = server.ids();
        ids.sort_unstable();
        assert_eq!(ids, (0..streams).collect::<Vec<u8>>());
        until_true("the slots are used up", || is_refused(offer.data));
    }
}

#[test]
fn answer_is_that_of_the_original() {
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, 8);
    let script = Script { in_two_segments: true, ..Script::original() };
    let server = OriginalServer::start(&workspace.root().join("f"), script);
    let answer = Ask::new(server.addr, "/f", 8).answer();
    assert_eq!(answer.status_line, "HTTP/1.0 200 OK");
    assert_eq!((answer.header("content-length"), answer.header("connection")), (None, None));
    let [request] = &server.requests()[..] else { panic!("one request expected") };
    let expected = format!(
        "POST /f HTTP/1.1\r\nHost: {}\r\nAccept-Encoding: identity\r\nContent-Length: 14\r\n\r\n{{\"threads\": 8}}",
        server.addr
    );
    assert_eq!(String::from_utf8_lossy(request), expected);
}

#[test]
fn parts_are_those_of_the_original() {
    let workspace = Workspace::new();
    for (size, streams, expected) in [
        (7, 8, vec![1, 1, 1, 1, 1, 1, 1, 0]),
        (8, 8, vec![2, 2, 2, 2, 0, 0, 0, 0]),
        (1, 8, vec![1, 0, 0, 0, 0, 0, 0, 0]),
        (0, 3, vec![0, 0, 0]),
        (1 << 20, 8, vec![131_073, 131_073, 131_073, 131_073, 131_073, 131_073, 131_073, 131_065]),
    ] {
        workspace.serve_pattern("f", 1, size);
        let server = OriginalServer::start(&workspace.root().join("f"), Script::swift());
        let streams = Ask::new(server.addr, "f", streams).patient().offer().streams_with(&[]);
        assert_eq!(streams.iter().map(|stream| stream.bytes.len()).collect::<Vec<_>>(), expected);
    }
}

#[test]
fn faults_are_what_they_say() {
    let workspace = Workspace::new();
    let content = workspace.serve_pattern("f", 1, 4_000_000);
    let path = workspace.root().join("f");
    let fetch = |script| {
        let server = OriginalServer::start(&path, script);
        let offer = Ask::new(server.addr, "f", 4).patient().offer();
        (offer.streams_with(&[]), offer.hash)
    };
    let (streams, hash) = fetch(Script { stream_end: StreamEnd::Reset, ..Script::swift() });
    assert!(join(&streams) == content && md5(&content) == hash);
    assert!(streams.iter().all(|stream| stream.end == End::Reset));

    let (streams, hash) = fetch(Script::with_fault(Streams::Only(2), Fault::Flipped(999_999)));
    let different = join(&streams).iter().zip(&content).filter(|(left, right)| left != right).count();
    assert_eq!((different, hash), (1, md5(&content)));

    let (streams, _) = fetch(Script::with_fault(Streams::Only(1), Fault::EndsAfter(7)));
    assert_eq!((streams[1].bytes.len(), streams[1].end), (7, End::Closed));
    assert_eq!(streams[0].bytes.len(), 1_000_001);

    let (streams, _) = fetch(Script::with_fault(Streams::Every, Fault::ResetsAfter(70_000)));
    assert!(streams.iter().all(|stream| stream.end == End::Reset && stream.bytes.len() <= 70_000));

    let (streams, _) = fetch(Script::with_fault(Streams::Only(3), Fault::Surplus(5)));
    assert_eq!(join(&streams).len(), content.len() + 5);

    let (streams, hash) = fetch(Script::answering(Answering::WrongHash));
    assert!(join(&streams) == content && hash != md5(&content));
}

#[test]
fn late_listener_refuses_before() {
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, 100);
    let script = Script { listens_after: Duration::from_millis(400), ..Script::swift() };
    let server = OriginalServer::start(&workspace.root().join("f"), script);
    let offer = Ask::new(server.addr, "f", 1).offer();
    assert!(is_refused(offer.data));
    until_true("the listener listens", || !is_refused(offer.data));
}
