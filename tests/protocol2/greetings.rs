//! Streams that are not what they should be, from a plain socket: refused, and no harm to those that are.

use std::time::{Duration, Instant};

use dt_testkit::content::pattern;
use dt_testkit::fetched::assert_fetched;
use dt_testkit::frame::{self, Frame};
use dt_testkit::session::{Session, Stream};
use dt_testkit::sockets::{connect, read_to_end, reset};
use rustix::process::Signal;

use crate::{MIB, fetch, served};

/// Fails unless an open stream still gives the right bytes.
#[track_caller]
fn assert_undisturbed(session: &Session, stream: &mut Stream, content: &[u8]) {
    for block in [session.blocks().next(), session.blocks().last()].into_iter().flatten() {
        let [start, end] = [block.start, block.end].map(|n| usize::try_from(n).expect("it fits"));
        assert!(session.fetch(stream, &block) == content[start..end], "{block:?}");
    }
}

#[test]
fn a_session_by_hand() {
    for size in [1, 70_000, 3 * MIB + 1] {
        let (_workspace, server, content) = served(size);
        for streams in [1, 3] {
            let session = Session::ask(server.addr, "f", streams);
            let mut open: Vec<Stream> = (0..streams).map(|id| session.open(id)).collect();
            assert!(session.download(&mut open) == content, "{size} bytes over {streams}");
        }
        let session = Session::ask(server.addr, "f", 2);
        let mut open = vec![session.upgrade(1), session.open(0)];
        assert!(session.download(&mut open) == content, "{size} bytes, one over the control port");
    }
}

#[test]
fn greetings_that_are_refused() {
    let (_workspace, mut server, content) = served(MIB);
    let session = Session::ask(server.addr, "f", 2);
    let other = Session::ask(server.addr, "f", 200);
    let mut open = session.open(0);
    assert_undisturbed(&session, &mut open, &content);
    let changed = |at: usize, value: u8| {
        let mut greeting = session.greeting(1);
        greeting[at] ^= value;
        greeting
    };
    let mut cases = vec![
        ("the secret of another session", frame::greeting(1, other.secret, session.session, 0), 1),
        ("no such session", frame::greeting(1, session.secret, !session.session, 0), 1),
        ("a secret of zeros", frame::greeting(1, [0; 16], session.session, 0), 1),
        ("zeros all over, of this version", frame::greeting(0, [0; 16], 0, 0), 1),
        ("an id that is one too many", session.greeting(2), 2),
        ("the largest id", session.greeting(255), 2),
        ("an id that is open", session.greeting(0), 2),
        ("an older version", changed(25, 3), 5),
        ("a later version", changed(25, 1), 5),
        ("an unknown flag", changed(26, 2), 5),
        ("a byte that must be 0", changed(27, 1), 5),
        ("noise", pattern(5, 28), 5),
    ];
    // A secret that is wrong in one bit, wherever it is.
    for at in 1..17 {
        cases.push(("a secret with one wrong bit", changed(at, 1), 1));
    }
    for (what, greeting, code) in &cases {
        for mut stream in [Stream::open(session.data, greeting), {
            let mut stream = Stream::open(session.data, &greeting[..11]);
            std::thread::sleep(Duration::from_millis(5));
            stream.send(&greeting[11..]);
            stream
        }] {
            stream.assert_refused(&[*code], what);
        }
        assert_undisturbed(&session, &mut open, &content);
    }
    // None of them used the other stream up.
    let mut second = session.open(1);
    assert_undisturbed(&session, &mut second, &content);
    server.assert_alive();
}

/// The words for a wrong secret and for no such session must not tell which it was.
#[test]
fn a_wrong_secret_and_no_session_look_alike() {
    let (_workspace, server, _) = served(MIB);
    let session = Session::ask(server.addr, "f", 1);
    let replies = [
        frame::greeting(0, [9; 16], session.session, 0),
        frame::greeting(0, session.secret, !session.session, 0),
    ]
    .map(|greeting| read_to_end(&Stream::open(session.data, &greeting).socket).bytes);
    assert_eq!(replies[0], replies[1]);
}

#[test]
fn a_stream_that_is_replaced() {
    let (_workspace, server, content) = served(MIB);
    let session = Session::ask(server.addr, "f", 2);
    let (mut other, mut former) = (session.open(1), session.open(0));
    assert_undisturbed(&session, &mut former, &content);
    let mut next = Stream::open(session.data, &session.replacing(0));
    assert_undisturbed(&session, &mut next, &content);
    assert_eq!(former.frame(), None, "the former connection is ended");
    assert_undisturbed(&session, &mut other, &content);
    // Replacing what is not there is fine, and so is coming back after an end of any kind.
    drop(other);
    assert_undisturbed(&session, &mut Stream::open(session.data, &session.replacing(1)), &content);
    reset(next.socket);
    assert_undisturbed(&session, &mut Stream::open(session.data, &session.replacing(0)), &content);
}

/// Streams that open and say nothing, or half of it, are closed after ten seconds; nobody waits for them.
#[test]
fn mute_streams() {
    let (workspace, mut server, content) = served(3 * MIB);
    let session = Session::ask(server.addr, "f", 3);
    let begin = Instant::now();
    let mute: Vec<Stream> =
        [0, 1, 27].into_iter().map(|n| Stream::open(session.data, &session.greeting(0)[..n])).collect();
    // A greeting that is cut off by its end.
    let cut = Stream::open(session.data, &session.greeting(1)[..20]);
    cut.socket.shutdown(std::net::Shutdown::Write).expect("it is shut down");
    assert_eq!(read_to_end(&cut.socket).bytes, b"");
    let mut open = session.open(0);
    assert_undisturbed(&session, &mut open, &content);
    let outcome = fetch(server.addr, 8, &workspace).run();
    assert_fetched(&outcome, &workspace.output("out"), &content, "beside mute streams");
    assert!(begin.elapsed() < Duration::from_secs(8), "somebody waited for them: {:?}", begin.elapsed());
    for stream in mute {
        assert_eq!(read_to_end(&stream.socket).bytes, b"");
    }
    assert!(begin.elapsed() > Duration::from_secs(8), "closed after {:?}", begin.elapsed());
    assert_undisturbed(&session, &mut open, &content);
    server.assert_alive();
}

#[test]
fn a_crowd_of_bad_streams() {
    let (workspace, mut server, content) = served(3 * MIB);
    let session = Session::ask(server.addr, "f", 2);
    let mut open = session.open(0);
    let noise = pattern(9, 100_000);
    let mute: Vec<_> = (0..100).map(|_| connect(session.data)).collect();
    for n in 0..100 {
        let stream = Stream::open(session.data, &noise[n * 28..(n + 1) * 1000]);
        if n % 2 == 0 {
            reset(stream.socket);
        }
    }
    let outcome = fetch(server.addr, 8, &workspace).run();
    assert_fetched(&outcome, &workspace.output("out"), &content, "beside a crowd");
    assert_undisturbed(&session, &mut open, &content);
    server.assert_alive();
    drop(mute);
}

/// HTTP on the data port, and a greeting on the control port.
#[test]
fn the_wrong_door() {
    let (_workspace, mut server, content) = served(MIB);
    let session = Session::ask(server.addr, "f", 1);
    let post = b"POST f HTTP/1.1\r\nHost: x\r\nContent-Length: 14\r\n\r\n{\"threads\": 8}";
    Stream::open(session.data, post).assert_refused(&[5], "HTTP");
    let mut greeting = session.greeting(0);
    greeting.extend(b"\r\n\r\n");
    let answer = read_to_end(&Stream::open(session.control, &greeting).socket).bytes;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{:?}", String::from_utf8_lossy(&answer));
    assert_undisturbed(&session, &mut session.open(0), &content);
    server.assert_alive();
}

/// Secrets are for the client that asked, not for those who read the log.
#[test]
fn secrets_are_not_logged() {
    let workspace = dt_testkit::workspace::Workspace::new();
    let content = workspace.serve_pattern("f", 1, MIB);
    let server = crate::PROGRAMS.serve(&workspace.root()).options(["-v"]).ready();
    let session = Session::ask(server.addr, "f", 1);
    assert_undisturbed(&session, &mut session.open(0), &content);
    Stream::open(session.data, &frame::greeting(0, [0xAB; 16], session.session, 0)).assert_refused(&[1], "");
    let secret = session.json["secret"].as_str().expect("a text").to_owned();
    let outcome = server.stop(Signal::TERM, Duration::from_secs(10));
    outcome.assert_success();
    for word in [secret.as_str(), "abababab"] {
        assert!(!outcome.stderr.contains(word), "{outcome}");
    }
}

/// A stream that is open when nobody expects it any more.
#[test]
fn after_the_end() {
    let (_workspace, server, content) = served(MIB);
    let session = Session::ask(server.addr, "f", 2);
    let mut first = session.open(0);
    assert_undisturbed(&session, &mut first, &content);
    first.send(&frame::end());
    assert_eq!(first.frame(), None, "the stream ends");
    dt_testkit::wait::until("the session is forgotten", || {
        let mut late = session.open(1);
        match late.frame() {
            Some(Frame::Refused { code: 1, .. }) => Some(()),
            Some(frame) => panic!("{frame:?}"),
            None => None,
        }
    });
}
