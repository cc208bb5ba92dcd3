//! Files of all sizes over all numbers of streams into all kinds of outputs, byte for byte.

use std::fs;
use std::time::Duration;

use dt_testkit::content::{assert_same_file, md5, write_hole, write_sparse};
use dt_testkit::events::{Events, number};
use dt_testkit::fetched::{assert_fetched, blake3_of, blake3_of_file};
use dt_testkit::pipe::Pipe;
use dt_testkit::session::Session;
use dt_testkit::wait::until_true;
use dt_testkit::workspace::Workspace;

use crate::{ENGINES, MIB, PROGRAMS, fetch, served};

/// Fetches files of `sizes` over each of `streams` with both engines.
fn check_sizes(sizes: &[usize], streams: &[u8]) {
    let workspace = Workspace::new();
    let server = PROGRAMS.serve(&workspace.root()).ready();
    for (seed, size) in (1..).zip(sizes) {
        let content = workspace.serve_pattern("f", seed, *size);
        for streams in streams {
            for engine in ENGINES {
                let case = format!("{size} bytes over {streams} streams, engine {engine}");
                let outcome = fetch(server.addr, *streams, &workspace).options(["--engine", engine]).run();
                let finished = assert_fetched(&outcome, &workspace.output("out"), &content, &case);
                for key in ["resumed", "retries", "repaired_blocks", "streams_lost"] {
                    assert_eq!(number(&finished, key), 0, "{case}: {finished}");
                }
                assert!(finished["md5"].is_null(), "{case}: {finished}");
                workspace.assert_outputs(&["out"]);
                fs::remove_file(workspace.output("out")).expect("it is ours");
            }
        }
    }
}

#[test]
fn files_around_chunk_and_block_sizes() {
    let (_workspace, server, _) = served(1);
    let block = usize::try_from(Session::request(server.addr, "f", 1).block).expect("it fits");
    let around = |n: usize| [n - 1, n, n + 1];
    let sizes = [&[0, 1][..], &around(1024), &around(block), &around(2 * block), &[17 * block + 5]].concat();
    check_sizes(&sizes, &[1, 2, 8]);
}

#[test]
fn more_streams_than_blocks() {
    check_sizes(&[0, 1, 5000, 3 * MIB + 1], &[255]);
}

#[test]
fn file_of_100_mib() {
    check_sizes(&[100 * MIB + 1], &[1, 2, 8, 255]);
}

/// Offsets beyond 32 bits, with both engines.
#[test]
fn file_of_more_than_4_gib() {
    const SIZE: u64 = (4 << 30) + 12_345;
    let Some(workspace) = Workspace::roomy(SIZE, "more than 4 GiB") else { return };
    let source = workspace.root().join("f");
    write_sparse(&source, SIZE, 8);
    let server = PROGRAMS.serve(&workspace.root()).ready();
    let hash = blake3_of_file(&source);
    for (engine, streams) in [("map", 8), ("write", 3)] {
        let run = fetch(server.addr, streams, &workspace).options(["--engine", engine]);
        let outcome = run.limit(Duration::from_secs(120)).run();
        outcome.assert_success();
        let events = Events::of(&outcome);
        assert_eq!(events.finished()["blake3"], hash.as_str());
        assert_eq!(number(events.finished(), "bytes"), SIZE);
        assert_same_file(&source, &workspace.output("out"));
        workspace.assert_outputs(&["out"]);
        fs::remove_file(workspace.output("out")).expect("it is ours");
    }
}

/// A pipe gets the bytes in order and needs no file: there is no folder that one could be made in.
#[test]
fn standard_output_gets_the_bytes_in_order() {
    for size in [0, 1, 70_000, 20 * MIB + 3] {
        let (workspace, server, content) = served(size);
        for streams in [1, 8, 255] {
            let run = PROGRAMS.fetch(server.addr, streams, "f", "-").options(["--protocol", "2"]);
            let outcome = run.env("TMPDIR", "/no/such/folder").run();
            outcome.assert_success();
            assert!(
                outcome.stdout == content,
                "{size} bytes over {streams} streams: {}",
                outcome.stdout.len()
            );
            let last = outcome.stderr.lines().last().unwrap_or_default();
            assert!(last.contains(&blake3_of(&content)), "{last:?}");
        }
        workspace.assert_outputs(&[]);
    }
}

#[test]
fn fifo_gets_the_bytes_in_order() {
    for size in [0, 1, 20 * MIB + 3] {
        let (workspace, server, content) = served(size);
        let fifo = workspace.output("pipe");
        let pipe = Pipe::make(&fifo);
        let run = PROGRAMS.fetch(server.addr, 8, "f", &fifo).options(["--protocol", "2", "--json"]);
        let client = run.env("TMPDIR", "/no/such/folder").start();
        let received = if size == 0 {
            vec![]
        } else {
            let mut pipe = pipe;
            [vec![pipe.first_byte()], pipe.drain()].concat()
        };
        let outcome = client.finish_within(Duration::from_secs(30));
        outcome.assert_success();
        assert!(received == content, "{} of {size} bytes", received.len());
        assert_eq!(Events::of(&outcome).finished()["blake3"], blake3_of(&content));
        // A pipe is written, not replaced, and nothing is kept beside it.
        workspace.assert_outputs(&["pipe"]);
    }
}

/// The reader of a pipe waits for its end even if the file is empty, and may not have opened it yet.
#[test]
fn empty_file_waits_for_the_reader_of_a_fifo() {
    let (workspace, server, _) = served(0);
    let fifo = workspace.output("pipe");
    Pipe::make_unread(&fifo);
    let run = PROGRAMS.fetch(server.addr, 8, "f", &fifo).options(["--protocol", "2", "--json"]);
    let mut client = run.start();
    until_true("the transfer begins", || Events::so_far(&client.stdout()).last("started").is_some());
    std::thread::sleep(Duration::from_millis(300));
    assert!(!client.has_ended(), "nobody has read its end: {}", client.stderr());
    let pipe = Pipe::open(&fifo);
    client.finish_within(Duration::from_secs(30)).assert_success();
    assert!(pipe.was_written());
}

/// A reader that rests holds the transfer up and is no stall; memory and the streams wait with it.
#[test]
fn pausing_fifo_reader_is_not_a_stall() {
    let (workspace, server, content) = served(60 * MIB);
    let fifo = workspace.output("pipe");
    let mut pipe = Pipe::make(&fifo);
    let run =
        PROGRAMS.fetch(server.addr, 8, "f", &fifo).options(["--protocol", "2", "--stall-timeout", "1s"]);
    let client = run.start();
    let mut received = vec![pipe.first_byte()];
    std::thread::sleep(Duration::from_secs(3));
    received.extend(pipe.drain());
    client.finish_within(Duration::from_secs(30)).assert_success();
    assert!(received == content, "{} bytes", received.len());
}

#[test]
fn both_digests_are_reported() {
    for size in [0, 1, 5 * MIB + 1] {
        let (workspace, server, content) = served(size);
        for round in 0..2 {
            let outcome = fetch(server.addr, 8, &workspace).options(["--md5"]).run();
            let finished = assert_fetched(&outcome, &workspace.output("out"), &content, "with --md5");
            assert_eq!(finished["md5"], md5(&content), "{size} bytes, round {round}: {finished}");
        }
        let outcome = PROGRAMS.fetch(server.addr, 8, "f", "-").options(["--protocol", "2", "--md5"]).run();
        outcome.assert_success();
        assert!(outcome.stdout == content);
        let last = outcome.stderr.lines().last().unwrap_or_default();
        assert!(last.contains(&md5(&content)), "{last:?}");
    }
}

/// Nothing is hashed before the first byte: a file that takes minutes to hash is granted at once.
#[test]
fn first_byte_does_not_wait_for_a_digest() {
    let (workspace, server, _) = served(1);
    write_hole(&workspace.root().join("huge"), 200 << 30);
    let begin = std::time::Instant::now();
    let session = Session::request(server.addr, "huge", 1);
    let mut stream = session.open(0);
    assert!(session.fetch(&mut stream, &(0..1)).iter().all(|byte| *byte == 0));
    assert!(begin.elapsed() < Duration::from_secs(5), "after {:?}", begin.elapsed());
}

/// Many clients at once, each with its own file.
#[test]
fn twenty_clients_at_once() {
    let workspace = Workspace::new();
    let server = PROGRAMS.serve(&workspace.root()).ready();
    let contents: Vec<Vec<u8>> =
        (0..20).map(|n| workspace.serve_pattern(&format!("f{n}"), n, 3 * MIB)).collect();
    let clients: Vec<_> = (0..20)
        .map(|n| {
            let output = workspace.output(&format!("out{n}"));
            PROGRAMS.fetch(server.addr, 4, format!("f{n}"), output).options(["--json"]).start()
        })
        .collect();
    for (n, (client, content)) in clients.into_iter().zip(&contents).enumerate() {
        let outcome = client.finish_within(Duration::from_secs(60));
        assert_fetched(&outcome, &workspace.output(&format!("out{n}")), content, &format!("client {n}"));
    }
}
