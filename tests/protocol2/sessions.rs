//! Frames from a plain socket: valid and invalid runs, digests, their order, and fields that must be 0.

use std::time::Duration;

use dt_testkit::content::{hex, md5, pattern, write_hole};
use dt_testkit::frame::{self, Frame, kind};
use dt_testkit::session::{Session, Stream, post};
use dt_testkit::wait::{until, until_true};
use dt_testkit::workspace::Workspace;
use rustix::process::Signal;

use crate::{MIB, PROGRAMS, served};

#[test]
fn runs_of_all_lengths_are_served() {
    let (_workspace, server, content) = served(3 * MIB + 777);
    let session = Session::request(server.addr, "f", 1);
    let mut stream = session.open(0);
    let n = session.n_blocks();
    let runs = [0..1, 1..2, 0..2, 1..n - 1, 0..n, n - 1..n, n - 2..n, n / 2..n / 2 + 1];
    for run in &runs {
        assert!(session.fetch(&mut stream, run) == session.part(&content, run), "{run:?}");
    }
    // Several at a time, in the order in which they were requested, with the digests anywhere between them.
    for run in &runs[..5] {
        stream.send(&session.run(run));
    }
    stream.send(&frame::digest(1));
    stream.send(&session.run(&runs[5]));
    for run in &runs[..6] {
        session.receive(&mut stream, run);
    }
    stream.send(&frame::end());
    let mut rest = std::iter::from_fn(|| stream.frame()).filter(|frame| !matches!(frame, Frame::Wait(_)));
    assert!(matches!(rest.next(), Some(Frame::Digests { code: 1, .. }) | None));
    assert_eq!(rest.next(), None);
}

/// A client that is interrupted says so, and its session does not wait for it to return.
#[test]
fn interrupted_client_ends_its_session() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let workspace = Workspace::new();
        workspace.serve_pattern("f", 1, 30 * MIB);
        let server = PROGRAMS.serve(&workspace.root()).ready();
        let run = PROGRAMS.fetch(server.addr, 4, "f", workspace.output("out"));
        let client = run.options(["--limit-rate", "4M"]).start();
        until_true("blocks are saved", || {
            std::fs::metadata(workspace.output("out.dtjournal")).is_ok_and(|journal| journal.len() > 500)
        });
        client.signal(signal);
        client.finish_within(Duration::from_secs(5)).assert_failure(128 + signal.as_raw());
        until_true("the server knows", || server.process().stderr().contains("the client gave up"));
    }
}

#[test]
fn invalid_request_is_refused() {
    let (_workspace, mut server, content) = served(3 * MIB + 777);
    let session = Session::request(server.addr, "f", 3);
    let mut bystander = session.open(0);
    let (n, block) = (session.n_blocks(), session.block);
    let last = session.bytes_of(&(n - 1..n));
    let run = |count: u32, first: u64, length: u64| frame::header(kind::RUN, 0, count, first, length);
    let valid = session.run(&(0..1));
    let with = |at: usize, value: u8| {
        let mut bytes = valid.clone();
        bytes[at] = value;
        bytes
    };
    let checked = |at: usize, value: u8| {
        let mut bytes = with(at, value);
        frame::set_check(&mut bytes);
        bytes
    };
    for (what, bytes) in [
        ("no blocks", run(0, 0, 0)),
        ("no blocks with a length", run(0, 0, block)),
        ("a block after the last", run(1, n, 1)),
        ("a run that ends after the last", run(2, n - 1, last.end - last.start + block)),
        ("a run that wraps around", run(2, u64::MAX, 2 * block)),
        ("the largest run", run(u32::MAX, 0, u64::MAX)),
        ("one byte too few", run(1, 0, block - 1)),
        ("one byte too many", run(1, 0, block + 1)),
        ("the last block as long as the others", run(1, n - 1, block)),
        ("no length", run(1, 0, 0)),
        ("an unknown kind", frame::header(0, 0, 0, 0, 0)),
        ("a kind of the sender", frame::header(kind::DATA, 0, 1, 0, block)),
        ("a run with an unknown code", checked(1, 2)),
        ("digests of a run that ends after the last", frame::proof_request(&(n - 1..n + 1), 2 * block)),
        ("a wrong check", with(2, valid[2] ^ 1)),
        ("another wrong check", with(3, valid[3] ^ 0x80)),
        ("a field that was changed in transit", with(8, 1)),
        ("no digest", frame::digest(0)),
        ("MD5 alone", frame::digest(2)),
        ("a digest with a block", frame::header(kind::DIGEST, 1, 0, 1, 0)),
        ("a digest with a count", frame::header(kind::DIGEST, 1, 1, 0, 0)),
        ("a digest with a length", frame::header(kind::DIGEST, 1, 0, 0, 48)),
        ("an end with a length", frame::header(kind::END, 0, 0, 0, 1)),
        ("an end with an unknown code", frame::header(kind::END, 2, 0, 0, 0)),
        ("noise", pattern(3, 24)),
    ] {
        let mut stream = session.open(1);
        // The valid request before it is answered.
        session.fetch(&mut stream, &(0..1));
        stream.send(&bytes);
        stream.assert_refused(&[5], what);
    }
    let mut last = session.open(2);
    for stream in [&mut bystander, &mut last] {
        assert!(session.fetch(stream, &(0..1)) == session.part(&content, &(0..1)));
    }
    server.assert_alive();
}

/// The digests of blocks without their bytes, also between runs, and as many as a run may have.
#[test]
fn digests_of_blocks_are_served_without_their_bytes() {
    let (_workspace, server, content) = served(17 * MIB + 777);
    let session = Session::request(server.addr, "f", 1);
    let mut stream = session.open(0);
    let n = session.n_blocks();
    let longest = (16 << 20) / session.block;
    for run in [0..1, 3..9, 0..longest, n - 2..n] {
        let (bytes, offset) = (session.part(&content, &run), run.start * session.block);
        let expected = frame::block_digests(session.size, session.block, offset, bytes);
        assert!(session.prove(&mut stream, &run) == expected, "{run:?}");
        assert!(session.fetch(&mut stream, &(0..1)) == session.part(&content, &(0..1)));
    }
    stream.send(&frame::proof_request(&(0..longest + 1), (longest + 1) * session.block));
    stream.assert_refused(&[5], "one block more");
}

#[test]
fn run_of_more_than_16_mib_is_refused() {
    let (workspace, server, _) = served(1);
    write_hole(&workspace.root().join("hole"), 64 << 20);
    let session = Session::request(server.addr, "hole", 1);
    let most = (16 << 20) / session.block;
    let mut stream = session.open(0);
    assert_eq!(session.fetch(&mut stream, &(0..most)).len(), 16 * MIB);
    stream.send(&session.run(&(0..most + 1)));
    stream.assert_refused(&[5], "one block more");
}

#[test]
fn digests_are_served_and_cached() {
    for size in [1, 3 * MIB + 777] {
        let (workspace, server, content) = served(size);
        // A file that has just been written could change again without a change of its times.
        until("the file is old enough for its digest to be cached", || {
            let file = std::fs::metadata(workspace.root().join("f")).expect("it is there");
            let age = file.modified().expect("it has a time").elapsed();
            age.is_ok_and(|age| age > Duration::from_millis(2200)).then_some(())
        });
        let body = r#"{"protocol": 2, "threads": 2, "md5": true}"#;
        let session = Session::of(server.addr, &post(server.addr, "f", body).body);
        let (blake3, md5_bytes) = session.open(0).digests(3);
        assert_eq!(blake3, *blake3::hash(&content).as_bytes(), "{size} bytes");
        let hex = hex(&md5_bytes);
        assert_eq!(hex, md5(&content), "{size} bytes");
        assert_eq!(session.open(1).digests(1), (blake3, [0; 16]), "{size} bytes, BLAKE3 alone");
        // From then on the digests are in the next offer.
        until("the digests are cached", || {
            let next = Session::request(server.addr, "f", 1);
            let known = (next.json["hash"].as_str(), next.json["blake3"].as_str().map(str::len));
            let is_known = known == (Some(hex.as_str()), Some(64));
            is_known.then_some(()).or_else(|| {
                next.open(0).digests(3);
                None
            })
        });
    }
}

/// While a digest is being computed the sender says so once a second, and runs are not delayed, on no stream.
#[test]
fn slow_digest_delays_no_run() {
    let (workspace, server, _) = served(1);
    write_hole(&workspace.root().join("huge"), 200 << 30);
    let session = Session::request(server.addr, "huge", 2);
    let mut waiting = session.open(0);
    let mut other = session.open(1);
    waiting.send(&frame::digest(3));
    let mut before = 0;
    for round in 0..3 {
        let Some(Frame::Wait(read)) = waiting.frame() else { panic!("WAIT expected") };
        assert!(read >= before, "{read} after {before}");
        before = read;
        for stream in [&mut waiting, &mut other] {
            let run = round..round + 2;
            assert!(session.fetch(stream, &run).iter().all(|byte| *byte == 0), "{run:?}");
        }
    }
    // The computation for a client that is gone must not keep the server from ending.
    drop(waiting);
    server.stop(Signal::TERM, Duration::from_secs(10)).assert_success();
}

#[test]
fn thousand_requests_in_flight_are_answered_in_order() {
    let (_workspace, server, content) = served(2 * MIB);
    let session = Session::request(server.addr, "f", 1);
    let mut stream = session.open(0);
    let n = session.n_blocks();
    let runs: Vec<_> = (0..1000).map(|request| request % n..request % n + 1).collect();
    let requests: Vec<u8> = runs.iter().flat_map(|run| session.run(run)).collect();
    stream.send(&requests);
    for (at, run) in runs.iter().enumerate() {
        assert!(session.receive(&mut stream, run) == session.part(&content, run), "request {at}");
    }
}

/// A receiver that reads nothing has its stream closed, and delays no other.
#[test]
fn receiver_that_reads_nothing_is_disconnected() {
    let workspace = Workspace::new();
    let content = workspace.serve_pattern("f", 1, 64 * MIB);
    let server = PROGRAMS.serve(&workspace.root()).options(["--stall-timeout", "1s"]).ready();
    let session = Session::request(server.addr, "f", 2);
    let most = (16 << 20) / session.block;
    let mut idle = session.open(0);
    for run in session.runs(most) {
        idle.send(&session.run(&run));
    }
    let mut other = session.open(1);
    for run in session.runs(most) {
        assert!(session.fetch(&mut other, &run) == session.part(&content, &run));
    }
    until_true("the stream that is not read can be opened again", || {
        let mut again = session.open(0);
        again.send(&session.run(&(0..1)));
        matches!(again.frame(), Some(Frame::Data { .. }))
    });
}

/// A session of no bytes needs no stream; one that is opened all the same does no harm.
#[test]
fn empty_file_is_an_offer_and_nothing_else() {
    let (_workspace, mut server, _) = served(0);
    let (session, mut first) = Session::upgrade(server.addr, "f", 8, 0, 1 << 20);
    assert_eq!((session.size, session.n_blocks(), first.frame()), (0, 0, None));
    let session = Session::request(server.addr, "f", 8);
    let mut stream = Stream::open(server.addr, &session.hello(0));
    stream.send(&frame::run(&(0..1), 1));
    assert!(matches!(stream.frame(), None | Some(Frame::Refused { .. })));
    server.assert_alive();
}
