//! Which bytes a stream gets, and that connections which get none take none from the others.

use std::io::{Read, Write};
use std::net::Ipv4Addr;

use dt_testkit::http::Answer;
use dt_testkit::original_client::Ask;
use dt_testkit::sockets::{End, Received, connect, connect_from, is_refused, local, read_to_end};
use dt_testkit::wait::until_true;
use dt_testkit::workspace::Workspace;

use crate::{MIB, PROGRAMS, bytes_of, post, served};

#[test]
fn parts_are_exact() {
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
fn ids_may_arrive_in_any_order() {
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
    // Stream 1 is being served while its id arrives again, and has ended when it arrives a third time.
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
fn silent_connections_take_nothing() {
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
