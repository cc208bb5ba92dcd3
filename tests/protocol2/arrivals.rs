//! Streams that arrive before, with and long after their session, and clients that go away in great numbers.

use std::io::Write;
use std::thread::sleep;
use std::time::Duration;

use dt_testkit::fetched::assert_fetched;
use dt_testkit::frame::{self, Frame};
use dt_testkit::session::{Session, Stream, UPGRADE, assert_upgraded, body, request};
use dt_testkit::sockets::connect;
use dt_testkit::wait::until;
use dt_testkit::workspace::Workspace;
use rustix::process::Signal;

use crate::hellos::assert_undisturbed;
use crate::{MIB, PROGRAMS, fetch, served};

/// A client may connect while the request is on its way, and send the hellos when it has the offer.
#[test]
fn connections_made_before_the_request_become_streams() {
    let (_workspace, server, content) = served(3 * MIB);
    let early: Vec<_> = (0..7).map(|_| connect(server.addr)).collect();
    sleep(Duration::from_millis(200));
    let (session, first) = Session::upgrade(server.addr, "f", 8, 0, 0);
    let mut streams = vec![first];
    for (id, mut socket) in (1..).zip(early) {
        socket.write_all(&session.hello(id)).expect("the hello is sent");
        streams.push(Stream::of(socket));
    }
    assert!(session.download(&mut streams) == content);
}

/// All in one moment: the hellos are there before the server has served any of them.
#[test]
fn streams_may_arrive_at_the_same_moment() {
    let (_workspace, server, content) = served(3 * MIB);
    for streams in [2, 100, 255] {
        let (session, first) = Session::upgrade(server.addr, "f", streams, 0, 1 << 20);
        let mut open: Vec<Stream> = (1..streams).map(|id| session.open(id)).collect();
        for (id, stream) in (1_u64..).zip(&mut open) {
            let block = id % session.n_blocks();
            stream.send(&session.run(&(block..block + 1)));
        }
        for (id, stream) in (1_u64..).zip(&mut open) {
            let run = id % session.n_blocks()..id % session.n_blocks() + 1;
            assert!(session.receive(stream, &run) == session.part(&content, &run), "{id} of {streams}");
        }
        drop(first);
    }
}

/// The hello of a session that does not exist yet uses up nothing of the one that then gets its number.
#[test]
fn hello_before_its_session_is_refused() {
    let (_workspace, server, content) = served(MIB);
    let before = Session::request(server.addr, "f", 2);
    for next in 1..4 {
        let hello = frame::hello(0, before.session + next, before.secret, 0);
        Stream::open(server.addr, &hello).assert_refused(&[1], "a session of the future");
    }
    let session = Session::request(server.addr, "f", 2);
    assert!(session.download(&mut [session.open(0), session.open(1)]) == content);
}

#[test]
fn session_waits_for_late_streams() {
    let (_workspace, server, content) = served(MIB);
    let late = connect(server.addr);
    let session = Session::request(server.addr, "f", 3);
    let (upgraded, first) = Session::upgrade(server.addr, "f", 2, 0, 0);
    drop(first);
    sleep(Duration::from_secs(7));
    // Silent for less than the ten seconds that a hello may take.
    let mut late = Stream::of(late);
    late.send(&session.hello(2));
    assert_undisturbed(&session, &mut late, &content);
    assert!(session.download(&mut [session.open(0), session.open(1)]) == content);
    assert_undisturbed(&upgraded, &mut upgraded.open(0), &content);
}

#[test]
fn expired_session_is_unknown() {
    let workspace = Workspace::new();
    let content = workspace.serve_pattern("f", 1, MIB);
    let server = PROGRAMS.serve(&workspace.root()).options(["--session-expiry", "1s"]).ready();
    let session = Session::request(server.addr, "f", 2);
    let open = Session::request(server.addr, "f", 1);
    let mut stream = open.open(0);
    sleep(Duration::from_secs(3));
    session.open(0).assert_refused(&[1], "an expired session");
    // An open stream keeps its session, also without requests on it.
    assert_undisturbed(&open, &mut stream, &content);
}

/// A request that is upgraded and then broken at any place leaves a session that its other streams can use.
#[test]
fn session_outlives_its_first_connection() {
    let (_workspace, server, content) = served(3 * MIB);
    let (session, mut first) = Session::upgrade(server.addr, "f", 2, 0, u64::MAX);
    // In the middle of the pushed run.
    let mut some = [0; 1000];
    std::io::Read::read_exact(&mut first.socket, &mut some).expect("the run begins");
    dt_testkit::sockets::reset(first.socket);
    let again = until("the first stream can be opened again", || {
        let mut again = Stream::open(server.addr, &session.replacing(0));
        again.send(&session.run(&(0..1)));
        matches!(again.frame(), Some(Frame::Data { .. })).then_some(again)
    });
    assert!(session.download(&mut [again, session.open(1)]) == content);
}

/// Requests of clients that disconnect at any stage before the answer do not disturb others.
#[test]
fn client_may_leave_at_any_stage() {
    let (workspace, mut server, content) = served(3 * MIB);
    let bytes = request(server.addr, "f", UPGRADE, &body(8, 0, 1 << 20));
    for n in (0..bytes.len()).step_by(11).chain([bytes.len(), bytes.len()]) {
        let mut socket = connect(server.addr);
        socket.write_all(&bytes[..n]).expect("it is sent");
        if n == bytes.len() {
            let head = dt_testkit::http::read_head(&mut socket).expect("an answer");
            assert_upgraded(&head);
        }
        dt_testkit::sockets::reset(socket);
    }
    let outcome = fetch(server.addr, 8, &workspace).run();
    assert_fetched(&outcome, &workspace.output("out"), &content, "after the others");
    server.assert_alive();
}

/// Sessions of clients that are gone must not be what keeps the next client out.
#[test]
fn three_hundred_lost_clients_and_then_a_normal_one() {
    const AT_ONCE: u64 = 20;
    let (workspace, mut server, content) = served(12 * MIB);
    for round in 0..300 / AT_ONCE {
        let clients: Vec<_> = (0..AT_ONCE)
            .map(|n| {
                let output = workspace.output(&format!("lost{n}"));
                let run = PROGRAMS.fetch(server.addr, 4, "f", output);
                run.options(["--protocol", "2", "--no-resume", "--limit-rate", "1M", "-q"]).start()
            })
            .collect();
        // Some have not connected yet by then, others are in the middle.
        sleep(Duration::from_millis(10 * round));
        for (n, client) in clients.into_iter().enumerate() {
            // Both ways of going away; a client that has not set up its handling of signals yet is ended by either.
            let signal = if n % 2 == 0 { Signal::KILL } else { Signal::INT };
            client.signal(signal);
            let outcome = client.finish_within(Duration::from_secs(20));
            assert!(outcome.code.is_none_or(|code| code == 130), "{outcome}");
        }
    }
    let outcome = fetch(server.addr, 8, &workspace).options(["--retries", "0"]).run();
    assert_fetched(&outcome, &workspace.output("out"), &content, "after 300 lost clients");
    server.assert_alive();
}
