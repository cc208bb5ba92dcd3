//! Frames from a plain socket: every range that is one, every range that is none, digests, order, and what must be 0.

use std::time::Duration;

use dt_testkit::content::{hex, md5, pattern};
use dt_testkit::frame::{self, Frame};
use dt_testkit::session::{Session, Stream, post};
use dt_testkit::wait::{until, until_true};

use crate::{MIB, PROGRAMS, served};

#[test]
fn ranges_that_are_subtrees() {
    let (_workspace, server, content) = served(3 * MIB + 777);
    let session = Session::ask(server.addr, "f", 1);
    let mut stream = session.open(0);
    let size = session.size;
    let ranges = [
        0..1024,
        1024..2048,
        2048..4096,
        0..1 << 20,
        1 << 20..2 << 20,
        0..2 << 20,
        2 << 20..size,
        3 << 20..size,
        0..size,
        size - 777..size,
        (3 << 20) - 1024..3 << 20,
    ];
    for range in &ranges {
        let [start, end] = [range.start, range.end].map(|n| usize::try_from(n).expect("it fits"));
        assert!(session.fetch(&mut stream, range) == content[start..end], "{range:?}");
    }
    // Several at a time, in the order in which they were asked for, with the digests between them.
    for range in &ranges[..5] {
        stream.send(&frame::range(range));
    }
    stream.send(&frame::digest(1));
    stream.send(&frame::range(&ranges[5]));
    for range in &ranges[..5] {
        session.receive(&mut stream, range);
    }
    let next = std::iter::from_fn(|| stream.frame()).find(|frame| !matches!(frame, Frame::Wait(_)));
    assert!(matches!(next, Some(Frame::Digests { code: 1, .. })), "{next:?}");
    session.receive(&mut stream, &ranges[5]);
}

#[test]
fn frames_that_are_none() {
    let (_workspace, mut server, content) = served(3 * MIB + 777);
    let session = Session::ask(server.addr, "f", 3);
    let mut bystander = session.open(0);
    let size = session.size;
    let block = 0..session.block;
    let with = |at: usize, value: u8| {
        let mut bytes = frame::range(&block);
        bytes[at] = value;
        bytes
    };
    for (what, bytes) in [
        ("an empty range", frame::header(1, 0, 0, 0)),
        ("a range beyond the end", frame::header(1, 0, size, 1)),
        ("a range that ends beyond the end", frame::header(1, 0, 3 << 20, 778)),
        ("a range that is not aligned", frame::header(1, 0, 1, 1024)),
        ("a range aligned to a half of its length", frame::header(1, 0, 1024, 2048)),
        ("a length that is no power of two", frame::header(1, 0, 0, 3000)),
        ("a range that wraps around", frame::header(1, 0, u64::MAX - 1023, 1024)),
        ("the largest length", frame::header(1, 0, 0, u64::MAX)),
        ("the largest offset", frame::header(1, 0, u64::MAX, 1)),
        ("a kind that is none", frame::header(0, 0, 0, 1024)),
        ("a kind of the sender", frame::header(0x81, 0, 0, 1024)),
        ("a code that a range has not", with(1, 1)),
        ("a byte that must be 0", with(2, 1)),
        ("another byte that must be 0", with(3, 0x80)),
        ("a second file", with(4, 1)),
        ("the last file", with(7, 0xff)),
        ("no digest", frame::header(2, 0, 0, 0)),
        ("MD5 alone", frame::header(2, 2, 0, 0)),
        ("a digest with an offset", frame::header(2, 1, 1, 0)),
        ("an end with a length", frame::header(3, 0, 0, 1)),
        ("noise", pattern(3, 24)),
    ] {
        let mut stream = session.open(1);
        // What was right before is answered.
        session.fetch(&mut stream, &block);
        stream.send(&bytes);
        stream.assert_refused(&[5], what);
    }
    let mut last = session.open(2);
    for stream in [&mut bystander, &mut last] {
        assert!(session.fetch(stream, &block) == content[..usize::try_from(block.end).expect("it fits")]);
    }
    server.assert_alive();
}

/// More than 16 MiB is asked for in one range by nobody who knows the limit.
#[test]
fn a_range_above_the_limit() {
    let (workspace, server, _) = served(1);
    let sparse = std::fs::File::create(workspace.root().join("sparse")).expect("it is made");
    sparse.set_len(64 << 20).expect("a sparse file");
    let session = Session::ask(server.addr, "sparse", 1);
    let mut stream = session.open(0);
    assert_eq!(session.fetch(&mut stream, &(0..16 << 20)).len(), 16 * MIB);
    stream.send(&frame::range(&(0..32 << 20)));
    stream.assert_refused(&[5], "32 MiB");
}

#[test]
fn digests() {
    for size in [1, 3 * MIB + 777] {
        let (workspace, server, content) = served(size);
        // What has just been written could change again without its times showing it.
        until("the file is old enough to be remembered", || {
            let file = std::fs::metadata(workspace.root().join("f")).expect("it is there");
            let age = file.modified().expect("it has a time").elapsed();
            age.is_ok_and(|age| age > std::time::Duration::from_millis(2200)).then_some(())
        });
        let body = r#"{"protocol": 2, "threads": 2, "md5": true}"#;
        let session = Session::of(server.addr, &post(server.addr, "f", body).body);
        let (blake3, md5_bytes) = session.open(0).digests(3);
        assert_eq!(blake3, *blake3::hash(&content).as_bytes(), "{size} bytes");
        let hex = hex(&md5_bytes);
        assert_eq!(hex, md5(&content), "{size} bytes");
        assert_eq!(session.open(1).digests(1), (blake3, [0; 16]), "{size} bytes, BLAKE3 alone");
        // What is known from then on stands in the next answer.
        until("the digests are remembered", || {
            let next = Session::ask(server.addr, "f", 1);
            let known = (next.json["hash"].as_str(), next.json["blake3"].as_str().map(str::len));
            let is_known = known == (Some(hex.as_str()), Some(64));
            is_known.then_some(()).or_else(|| {
                next.open(0).digests(3);
                None
            })
        });
    }
}

/// While a digest is being computed the sender says so once a second, and other streams get their bytes.
#[test]
fn a_digest_that_takes_long() {
    let (workspace, server, _) = served(1);
    let huge = std::fs::File::create(workspace.root().join("huge")).expect("it is made");
    huge.set_len(200 << 30).expect("a sparse file");
    let session = Session::ask(server.addr, "huge", 2);
    let mut waiting = session.open(0);
    waiting.send(&frame::digest(3));
    let mut before = 0;
    for _ in 0..3 {
        let Some(Frame::Wait(hashed)) = waiting.frame() else { panic!("WAIT expected") };
        assert!(hashed >= before, "{hashed} after {before}");
        before = hashed;
        let mut other = session.open(1);
        session.fetch(&mut other, &(0..session.block));
        drop(other);
        until_true("the stream can be opened again", || {
            let mut again = session.open(1);
            again.send(&frame::range(&(0..1024)));
            matches!(again.frame(), Some(Frame::Data { .. }))
        });
    }
    // Whoever hashes for a client that has gone must not keep the server from ending.
    drop(waiting);
    server.stop(rustix::process::Signal::TERM, Duration::from_secs(10)).assert_success();
}

#[test]
fn a_thousand_requests_at_once() {
    let (_workspace, server, content) = served(2 * MIB);
    let session = Session::ask(server.addr, "f", 1);
    let mut stream = session.open(0);
    let ranges: Vec<_> = (0..1000_u64).map(|n| n * 1024..(n + 1) * 1024).collect();
    let demands: Vec<u8> = ranges.iter().flat_map(frame::range).collect();
    stream.send(&demands);
    for (n, range) in ranges.iter().enumerate() {
        assert!(session.receive(&mut stream, range) == content[n * 1024..(n + 1) * 1024], "range {n}");
    }
}

/// A receiver that reads nothing has its stream closed, and nobody else waits for it.
#[test]
fn a_receiver_that_reads_nothing() {
    let workspace = dt_testkit::workspace::Workspace::new();
    let content = workspace.serve_pattern("f", 1, 64 * MIB);
    let server = PROGRAMS.serve(&workspace.root()).options(["--stall-timeout", "1s"]).ready();
    let session = Session::ask(server.addr, "f", 2);
    let mut idle = session.open(0);
    for n in 0..4_u64 {
        idle.send(&frame::range(&(n << 24..(n + 1) << 24)));
    }
    let mut other = session.open(1);
    for n in 0..4_u64 {
        let range = n << 24..(n + 1) << 24;
        let start = usize::try_from(range.start).expect("it fits");
        assert!(session.fetch(&mut other, &range) == content[start..start + (16 << 20)]);
    }
    until_true("the stream that nobody reads can be opened again", || {
        let mut again = session.open(0);
        again.send(&frame::range(&(0..1024)));
        matches!(again.frame(), Some(Frame::Data { .. }))
    });
}

/// A session of no bytes needs no stream; what comes all the same does no harm.
#[test]
fn an_empty_file() {
    let (_workspace, mut server, _) = served(0);
    let session = Session::ask(server.addr, "f", 8);
    assert_eq!((session.size, session.blocks().count()), (0, 0));
    let mut stream = Stream::open(session.data, &session.greeting(0));
    stream.send(&frame::range(&(0..1)));
    assert!(matches!(stream.frame(), None | Some(Frame::Refused { .. })));
    server.assert_alive();
}
