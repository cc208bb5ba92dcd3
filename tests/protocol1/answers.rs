//! The answer to a request: to the byte, once, and with the digest of the file as it is now.

use std::fs;
use std::io::Write;
use std::time::Duration;

use dt_testkit::content::md5;
use dt_testkit::http::{Afterwards, Answer, exchange};
use dt_testkit::original_client::Ask;
use dt_testkit::programs::Server;
use dt_testkit::sockets::{End, connect, read_to_end};
use dt_testkit::wait::until_true;

use crate::{MIB, post, served};

#[test]
fn answer_is_that_of_the_original_to_the_byte() {
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
fn one_request_per_connection() {
    let (_workspace, server, _) = served(1000, &[]);
    let two = [post(r#"{"threads": 8}"#), post(r#"{"threads": 8}"#)].concat();
    let answer = exchange(server.addr, &[&two], Afterwards::Wait);
    assert_eq!(answer.status, 200);
    assert_eq!(String::from_utf8_lossy(&answer.raw).matches("HTTP/1.").count(), 1, "{answer:?}");
}

#[test]
fn request_may_arrive_in_single_bytes() {
    let (_workspace, server, content) = served(1000, &[]);
    let mut stream = connect(server.addr);
    for byte in post(r#"{"threads": 1}"#) {
        stream.write_all(&[byte]).expect("a byte is sent");
    }
    let received = read_to_end(&stream);
    let answer = Answer::parse(&received.bytes, received.end).expect("an answer");
    assert!(answer.status == 200 && answer.body.contains(&md5(&content)), "{answer:?}");
}

/// The bytes that a process has read so far, whichever way.
fn bytes_read(server: &Server) -> u64 {
    let io = fs::read_to_string(format!("/proc/{}/io", server.process().id())).expect("it may be read");
    let line = io.lines().find_map(|line| line.strip_prefix("rchar: ")).expect("it counts what is read");
    line.parse().expect("it is a number")
}

#[test]
fn unchanged_file_is_read_once() {
    let size = 20 * MIB;
    let (workspace, server, content) = served(size, &[]);
    let size = u64::try_from(size).expect("it fits");
    // A file that has just been written could change again without a change of its times.
    let path = workspace.root().join("f");
    until_true("the file is old enough to be remembered", || {
        let modified = fs::metadata(&path).and_then(|metadata| metadata.modified()).expect("it is there");
        modified.elapsed().is_ok_and(|age| age > Duration::from_millis(2200))
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
fn quickly_changing_file_gets_fresh_digests() {
    let (workspace, server, _) = served(100, &[]);
    for seed in 0..200 {
        let content = workspace.serve_pattern("f", seed, 100);
        assert_eq!(Ask::new(server.addr, "f", 1).offer().hash, md5(&content), "version {seed}");
    }
}
