//! Streams that are not what they should be, from a plain socket: refused, without harm to the others.

use std::net::Shutdown;
use std::time::{Duration, Instant};

use dt_testkit::content::pattern;
use dt_testkit::fetched::assert_fetched;
use dt_testkit::frame::{self, Frame, MARK};
use dt_testkit::session::{Session, Stream};
use dt_testkit::sockets::{connect, read_to_end, reset};
use dt_testkit::wait::until;
use dt_testkit::workspace::Workspace;
use rustix::process::Signal;

use crate::{MIB, PROGRAMS, fetch, served};

/// Fails unless an open stream still serves the right bytes.
#[track_caller]
pub(crate) fn assert_undisturbed(session: &Session, stream: &mut Stream, content: &[u8]) {
    let last = session.n_blocks() - 1;
    for run in [0..1, last..last + 1] {
        assert!(session.fetch(stream, &run) == session.part(content, &run), "{run:?}");
    }
}

#[test]
fn streams_can_be_opened_in_three_ways() {
    for size in [1, 70_000, 3 * MIB + 1] {
        let (_workspace, server, content) = served(size);
        for streams in [1, 3] {
            let session = Session::request(server.addr, "f", streams);
            let mut open: Vec<Stream> = (0..streams).map(|id| session.open(id)).collect();
            assert!(session.download(&mut open) == content, "{size} bytes over {streams}");
        }
        let (session, first) = Session::upgrade(server.addr, "f", 3, 0, 0);
        let mut open = [first, session.open(1), session.open_over_http(2)];
        assert!(session.download(&mut open) == content, "{size} bytes, opened in all three ways");
    }
}

#[test]
fn pushed_run_is_what_the_request_asked_for() {
    let (_workspace, server, content) = served(3 * MIB + 777);
    let block = Session::request(server.addr, "f", 1).block;
    let size = 3 * (1 << 20) + 777;
    for (from, push) in [
        (0, 0),
        (0, block - 1),
        (0, block),
        (0, 3 * block + 5),
        (0, u64::MAX),
        (block - 1, block),
        (block, 2 * block),
        (size - 1, block),
        (size - 1, 1),
        (size, block),
        (size + 1, block),
    ] {
        let what = format!("from {from}, push {push}");
        let (session, mut stream) = Session::upgrade(server.addr, "f", 1, from, push);
        if let Some(run) = session.pushed(from, push) {
            assert!(session.receive(&mut stream, &run) == session.part(&content, &run), "{what}");
        }
        // The stream serves requests as any other.
        assert!(session.download(&mut [stream]) == content, "{what}");
    }
}

#[test]
fn invalid_hello_is_refused() {
    let (_workspace, mut server, content) = served(MIB);
    let session = Session::request(server.addr, "f", 2);
    let other = Session::request(server.addr, "f", 200);
    let mut open = session.open(0);
    assert_undisturbed(&session, &mut open, &content);
    let changed = |at: usize, value: u8| {
        let mut hello = session.hello(1);
        hello[at] ^= value;
        hello
    };
    let mut noise = pattern(5, 28);
    noise[1] = MARK;
    let mut cases = vec![
        ("the secret of another session", frame::hello(1, session.session, other.secret, 0), 1),
        ("no such session", frame::hello(1, !session.session, session.secret, 0), 1),
        ("a secret of zeros", frame::hello(1, session.session, [0; 16], 0), 1),
        ("zeros all over, of this version", frame::hello(0, 0, [0; 16], 0), 1),
        ("an id that is one too many", session.hello(2), 2),
        ("the largest id", session.hello(255), 2),
        ("an id that is open", session.hello(0), 2),
        ("an older version", changed(2, 3), 5),
        ("a later version", changed(2, 1), 5),
        ("an unknown flag", changed(3, 2), 5),
        ("the last unknown flag", changed(3, 0x80), 5),
        ("noise after the mark", noise, 5),
    ];
    // A session or a secret that is wrong in one bit, wherever it is.
    for at in 4..28 {
        cases.push(("one wrong bit", changed(at, 1), 1));
    }
    for (what, hello, code) in &cases {
        for cut in [1, 2, 11, 28] {
            let mut stream = Stream::open(server.addr, &hello[..cut]);
            if cut < 28 {
                std::thread::sleep(Duration::from_millis(5));
                stream.send(&hello[cut..]);
            }
            stream.assert_refused(&[*code], what);
        }
        assert_undisturbed(&session, &mut open, &content);
    }
    // None of them used the other stream up.
    let mut second = session.open(1);
    assert_undisturbed(&session, &mut second, &content);
    server.assert_alive();
}

#[test]
fn wrong_secret_and_missing_session_look_alike() {
    let (_workspace, server, _) = served(MIB);
    let session = Session::request(server.addr, "f", 1);
    let replies =
        [frame::hello(0, session.session, [9; 16], 0), frame::hello(0, !session.session, session.secret, 0)]
            .map(|hello| read_to_end(&Stream::open(server.addr, &hello).socket).bytes);
    assert_eq!(replies[0], replies[1]);
}

#[test]
fn stream_is_replaced_with_the_flag() {
    let (_workspace, server, content) = served(MIB);
    let (session, mut former) = Session::upgrade(server.addr, "f", 2, 0, 0);
    let mut other = session.open(1);
    assert_undisturbed(&session, &mut former, &content);
    // The upgraded connection is replaced like any other.
    let mut next = Stream::open(server.addr, &session.replacing(0));
    assert_undisturbed(&session, &mut next, &content);
    assert_eq!(former.frame(), None, "the former connection is closed");
    assert_undisturbed(&session, &mut other, &content);
    // A stream that is not open any more can be replaced too, after an end of any kind.
    drop(other);
    assert_undisturbed(&session, &mut Stream::open(server.addr, &session.replacing(1)), &content);
    reset(next.socket);
    assert_undisturbed(&session, &mut Stream::open(server.addr, &session.replacing(0)), &content);
}

/// Connections that are silent, or stop within the hello, are closed after ten seconds and delay no other.
#[test]
fn silent_connections_are_closed() {
    let (workspace, mut server, content) = served(3 * MIB);
    let session = Session::request(server.addr, "f", 3);
    let begin = Instant::now();
    let silent: Vec<Stream> =
        [0, 1, 2, 27].into_iter().map(|n| Stream::open(server.addr, &session.hello(0)[..n])).collect();
    for n in [0, 1, 2, 20] {
        let cut = Stream::open(server.addr, &session.hello(1)[..n]);
        cut.socket.shutdown(Shutdown::Write).expect("it is shut down");
        assert_eq!(read_to_end(&cut.socket).bytes, b"", "a hello of {n} bytes");
    }
    let mut open = session.open(0);
    assert_undisturbed(&session, &mut open, &content);
    let outcome = fetch(server.addr, 8, &workspace).run();
    assert_fetched(&outcome, &workspace.output("out"), &content, "beside silent connections");
    assert!(begin.elapsed() < Duration::from_secs(8), "they delayed others: {:?}", begin.elapsed());
    for stream in silent {
        let bytes = read_to_end(&stream.socket).bytes;
        assert!(bytes.is_empty() || bytes.starts_with(b"HTTP/1.1 408 "), "{bytes:?}");
    }
    assert!(begin.elapsed() > Duration::from_secs(8), "closed after {:?}", begin.elapsed());
    assert_undisturbed(&session, &mut open, &content);
    server.assert_alive();
}

/// Connections that end before they have said what they are, such as those of health checks, are not worth a line.
#[test]
fn connection_that_says_nothing_is_not_logged() {
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, 1000);
    let server = PROGRAMS.serve(&workspace.root()).options(["-v"]).ready();
    let session = Session::request(server.addr, "f", 1);
    let before =
        until("the request is logged", || Some(server.process().stderr()).filter(|log| !log.is_empty()));
    for n in [0, 1, 0] {
        drop(Stream::open(server.addr, &session.hello(0)[..n]));
    }
    let mut stream = session.open(0);
    session.fetch(&mut stream, &(0..1));
    let log = server.process().stderr();
    assert!(!log[before.len()..].to_lowercase().contains("hello"), "{log}");
}

#[test]
fn crowd_of_bad_streams_disturbs_nobody() {
    let (workspace, mut server, content) = served(3 * MIB);
    let session = Session::request(server.addr, "f", 2);
    let mut open = session.open(0);
    let noise = pattern(9, 100_000);
    let silent: Vec<_> = (0..100).map(|_| connect(server.addr)).collect();
    for n in 0..100 {
        let stream = Stream::open(server.addr, &noise[n * 28..(n + 1) * 1000]);
        if n % 2 == 0 {
            reset(stream.socket);
        }
    }
    let outcome = fetch(server.addr, 8, &workspace).run();
    assert_fetched(&outcome, &workspace.output("out"), &content, "beside a crowd");
    assert_undisturbed(&session, &mut open, &content);
    server.assert_alive();
    drop(silent);
}

/// The first two bytes decide: what looks like TLS is closed, everything else that is no hello is answered as HTTP.
#[test]
fn first_bytes_of_other_protocols_are_harmless() {
    let (_workspace, mut server, content) = served(MIB);
    let session = Session::request(server.addr, "f", 1);
    let mut open = session.open(0);
    let client_hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice();
    for bytes in [client_hello, b"\x16\x03", &[client_hello, &[0xD7; 500]].concat()] {
        let stream = Stream::open(server.addr, bytes);
        stream.socket.shutdown(Shutdown::Write).expect("it is shut down");
        assert!(read_to_end(&stream.socket).bytes.is_empty(), "{bytes:?}");
    }
    let mut shifted = vec![0];
    shifted.extend(session.hello(0));
    for bytes in [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n".as_slice(),
        b"\x00\x00\r\n\r\n",
        b"\xD7\x00\x02\x00\r\n\r\n",
        b"\x80\x2e\x01\x03\x01\r\n\r\n",
        b"EHLO example.org\r\n\r\n",
        &[pattern(3, 200), b"\r\n\r\n".to_vec()].concat(),
        &[shifted, b"\r\n\r\n".to_vec()].concat(),
    ] {
        // With the mark they would be taken for a hello.
        assert_ne!(bytes[1], MARK);
        let stream = Stream::open(server.addr, bytes);
        let _ = stream.socket.shutdown(Shutdown::Write);
        let answer = read_to_end(&stream.socket).bytes;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{bytes:?}: {answer:?}");
        assert_undisturbed(&session, &mut open, &content);
    }
    server.assert_alive();
}

/// Secrets are for the client that made the request, not for the readers of the log.
#[test]
fn secrets_are_not_logged() {
    let workspace = Workspace::new();
    let content = workspace.serve_pattern("f", 1, MIB);
    let server = PROGRAMS.serve(&workspace.root()).options(["-v"]).ready();
    let (session, mut first) = Session::upgrade(server.addr, "f", 2, 0, 0);
    assert_undisturbed(&session, &mut first, &content);
    assert_undisturbed(&session, &mut session.open(1), &content);
    Stream::open(server.addr, &frame::hello(0, session.session, [0xAB; 16], 0)).assert_refused(&[1], "");
    let secret = session.json["secret"].as_str().expect("a text").to_owned();
    let outcome = server.stop(Signal::TERM, Duration::from_secs(10));
    outcome.assert_success();
    for word in [secret.as_str(), "abababab"] {
        assert!(!outcome.stderr.contains(word), "{outcome}");
    }
}

#[test]
fn session_is_forgotten_after_its_end() {
    let (_workspace, server, content) = served(MIB);
    let (session, mut first) = Session::upgrade(server.addr, "f", 2, 0, 0);
    assert_undisturbed(&session, &mut first, &content);
    first.send(&frame::end());
    assert_eq!(first.frame(), None, "the stream ends");
    until("the session is forgotten", || {
        let mut late = session.open(1);
        match late.frame() {
            Some(Frame::Refused { code: 1, .. }) => Some(()),
            Some(frame) => panic!("{frame:?}"),
            None => None,
        }
    });
}
