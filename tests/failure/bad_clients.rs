//! Many clients, and clients that are mute, send garbage or reset: none of them may disturb another.

use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use dt_testkit::content::pattern;
use dt_testkit::http::{Afterwards, send};
use dt_testkit::original_client::Ask;
use dt_testkit::sockets::{End, connect, read_to_end, reset};
use dt_testkit::wait::until;
use dt_testkit::workspace::{Workspace, files_in};

use crate::{MIB, PROGRAMS};

#[test]
fn fifty_clients_at_once() {
    let workspace = Workspace::new();
    let mut server = PROGRAMS.serve(&workspace.root()).ready();
    let shared = workspace.serve_pattern("shared", 99, MIB);
    let own: Vec<_> = (0..50)
        .map(|n| workspace.serve_pattern(&format!("f{n}"), n, 100_000 + usize::try_from(n).expect("small")))
        .collect();
    for same in [false, true] {
        let clients: Vec<_> = (0..50)
            .map(|n| {
                let name = if same { "shared".to_owned() } else { format!("f{n}") };
                PROGRAMS.fetch(server.addr, 4, name, workspace.output(&format!("out{n}"))).start()
            })
            .collect();
        for (n, client) in clients.into_iter().enumerate() {
            let outcome = client.finish_within(Duration::from_secs(60));
            assert_eq!(outcome.code, Some(0), "client {n} of 50: {outcome}");
            let received = fs::read(workspace.output(&format!("out{n}"))).expect("it is there");
            assert!(received == *if same { &shared } else { &own[n] }, "client {n} of 50");
        }
        assert_eq!(files_in(&workspace.outputs()).len(), 50);
    }
    server.assert_alive();
}

/// Fetches a file in a moment, which no peer before may have made impossible.
fn check_undisturbed(what: &str, addr: SocketAddr, workspace: &Workspace) {
    let expected = fs::read(workspace.root().join("f")).expect("it is there");
    let begin = Instant::now();
    let outcome = PROGRAMS.fetch(addr, 8, "f", workspace.output("out")).run();
    assert_eq!(outcome.code, Some(0), "{what}: {outcome}");
    assert!(fs::read(workspace.output("out")).expect("it is there") == expected, "{what}");
    assert!(begin.elapsed() < Duration::from_secs(10), "{what}: {outcome}");
}

#[test]
fn silent_peers_disturb_nobody() {
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, 3 * MIB);
    let mut server = PROGRAMS.serve(&workspace.root()).ready();
    let mute = connect(server.addr);
    let half = connect(server.addr);
    send(&half, &[b"POST f HTTP/1.1\r\nContent-Le"], Afterwards::Wait);
    let no_body = connect(server.addr);
    send(&no_body, &[b"POST f HTTP/1.1\r\nContent-Length: 14\r\n\r\n{"], Afterwards::Wait);
    let offer = Ask::new(server.addr, "f", 2).offer();
    let mute_stream = connect(offer.data);
    let unread = offer.open(1);
    check_undisturbed("mute peers", server.addr, &workspace);
    // The mute stream has not used up the other's slot.
    let first = offer.stream(0);
    assert_eq!(first.bytes.len(), 3 * MIB / 2 + 1);
    assert_eq!(read_to_end(&unread).bytes.len(), 3 * MIB / 2 - 1);
    server.assert_alive();
    drop((mute, half, no_body, mute_stream));
}

#[test]
fn silent_peers_are_disconnected() {
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, 100 * MIB);
    let server = PROGRAMS.serve(&workspace.root()).options(["--stall-timeout", "500ms"]).ready();
    let offer = Ask::new(server.addr, "f", 2).offer();
    let mute_stream = connect(offer.data);
    let idle = offer.open(0);
    // Only the end is awaited; reading here would be what the server waits for.
    assert_eq!(read_to_end(&mute_stream).bytes, b"");
    until("the stream that nobody reads is reset", || {
        let mut fds = [rustix::event::PollFd::new(&idle, rustix::event::PollFlags::RDHUP)];
        let limit = rustix::event::Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        let ready = rustix::event::poll(&mut fds, Some(&limit)).is_ok_and(|n| n > 0);
        let ended = rustix::event::PollFlags::HUP | rustix::event::PollFlags::ERR;
        (ready && fds[0].revents().intersects(ended)).then_some(())
    });
    assert_eq!(read_to_end(&idle).end, End::Reset);
}

#[test]
fn garbage_disturbs_nobody() {
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, 3 * MIB);
    let mut server = PROGRAMS.serve(&workspace.root()).ready();
    let noise = pattern(77, 200_000);
    let long_header = [b"POST f HTTP/1.1\r\nX: ".as_slice(), &vec![b'x'; 4 << 20]].concat();
    let many_headers = [b"POST f HTTP/1.1\r\n".as_slice(), "A: b\r\n".repeat(200_000).as_bytes()].concat();
    for (what, bytes) in [
        ("noise", noise.as_slice()),
        ("zeros", &b"\0".repeat(100_000)),
        ("line ends", &b"\r\n".repeat(50_000)),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"),
        ("a long header", &long_header),
        ("many headers", &many_headers),
    ] {
        let stream = connect(server.addr);
        send(&stream, &[bytes], Afterwards::HalfClose);
        let received = read_to_end(&stream);
        let text = String::from_utf8_lossy(&received.bytes);
        assert!(text.is_empty() || text.starts_with("HTTP/1."), "{what}: {text:?}");
        assert!(!text.contains(" 200 "), "{what}: {text:?}");
    }
    let offer = Ask::new(server.addr, "f", 8).offer();
    for _ in 0..20 {
        let stream = connect(offer.data);
        send(&stream, &[&b"\xC8".repeat(50_000)], Afterwards::Wait);
        assert_eq!(read_to_end(&stream).bytes, b"");
    }
    check_undisturbed("garbage", server.addr, &workspace);
    offer.download();
    server.assert_alive();
}

#[test]
fn resetting_peers_disturb_nobody() {
    let workspace = Workspace::new();
    let content = workspace.serve_pattern("f", 1, 30 * MIB);
    let mut server = PROGRAMS.serve(&workspace.root()).ready();
    for bytes in
        [b"".as_slice(), b"POST f HT", b"POST f HTTP/1.1\r\nContent-Length: 14\r\n\r\n{\"threads\": 8}"]
    {
        for _ in 0..20 {
            let stream = connect(server.addr);
            send(&stream, &[bytes], Afterwards::Wait);
            reset(stream);
        }
    }
    let offer = Ask::new(server.addr, "f", 4).offer();
    // Two streams connect and disconnect before and while they are served; the others are not disturbed.
    for _ in 0..10 {
        reset(connect(offer.data));
    }
    reset(offer.open(1));
    let mut third = offer.open(3);
    third.read_exact(&mut [0; 1000]).expect("it begins");
    reset(third);
    let part = 30 * MIB / 4 + 1;
    assert!(offer.stream(0).bytes == content[..part]);
    assert!(offer.stream(2).bytes == content[2 * part..3 * part]);
    check_undisturbed("resets", server.addr, &workspace);
    server.assert_alive();
}
