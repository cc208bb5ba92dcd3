//! Streams that are short, long, wrong, reset or stalled, and servers that die while they send.

use std::fs;
use std::io::Read;
use std::time::Duration;

use dt_testkit::messages::SAVED;
use dt_testkit::original_client::Ask;
use dt_testkit::original_server::{Answering, Fault, Script, Streams};
use dt_testkit::sockets::{End, read_to_end};
use dt_testkit::wait::{PATIENCE, until_true};
use dt_testkit::workspace::Workspace;
use rustix::process::Signal;

use crate::{BEFORE, MIB, PROGRAMS, check_bad_server};

#[test]
fn short_stream_fails_the_transfer() {
    for (what, only, fault) in [
        ("the first ends early", 0, Fault::EndsAfter(100_000)),
        ("one in the middle ends early", 2, Fault::EndsAfter(3)),
        ("the first is empty", 0, Fault::EndsAfter(0)),
    ] {
        check_bad_server(what, &Script::with_fault(Streams::Only(only), fault), 3 * MIB, &[], &[4]);
    }
}

/// Lengths that a file two bytes shorter would have: only the digest shows it.
#[test]
fn short_last_stream_fails_the_transfer() {
    let script = Script::with_fault(Streams::Only(3), Fault::EndsAfter((1 << 19) - 2));
    check_bad_server("two bytes are missing at the end", &script, 2 * MIB + 3, &[], &[6]);
}

#[test]
fn reset_stream_fails_the_transfer() {
    for (what, streams, fault) in [
        ("one is reset", Streams::Only(1), Fault::ResetsAfter(300_000)),
        ("one is reset before its first byte", Streams::Only(2), Fault::ResetsAfter(0)),
        ("the server dies", Streams::Every, Fault::ResetsAfter(200_000)),
    ] {
        check_bad_server(what, &Script::with_fault(streams, fault), 3 * MIB, &[], &[4]);
    }
}

#[test]
fn wrong_bytes_fail_the_transfer() {
    for (what, script) in [
        ("one byte of the first stream", Script::with_fault(Streams::Only(0), Fault::Flipped(0))),
        ("one byte of the last stream", Script::with_fault(Streams::Only(3), Fault::Flipped(700_000))),
        ("one byte of every stream", Script::with_fault(Streams::Every, Fault::Flipped(12_345))),
        ("another MD5", Script::answering(Answering::WrongHash)),
        ("one byte more at the end", Script::with_fault(Streams::Only(3), Fault::Surplus(1))),
    ] {
        check_bad_server(what, &script, 3 * MIB, &[], &[6]);
    }
}

/// Lengths that no file splits into. A client that does not know the size cannot know whether this stream is too long
/// or the others are too short.
#[test]
fn surplus_bytes_fail_the_transfer() {
    for surplus in [1, 100_000] {
        let script = Script::with_fault(Streams::Only(1), Fault::Surplus(surplus));
        check_bad_server("surplus bytes in the middle", &script, 3 * MIB, &[], &[4, 6]);
    }
}

#[test]
fn wrong_bytes_of_a_tiny_file_fail_the_transfer() {
    for (script, size) in [
        (Script::with_fault(Streams::Only(0), Fault::Flipped(0)), 1),
        (Script::answering(Answering::WrongHash), 0),
        (Script::with_fault(Streams::Only(0), Fault::Surplus(1)), 0),
    ] {
        check_bad_server("a tiny file", &script, size, &[], &[6]);
    }
}

#[test]
fn stalled_server_times_out() {
    let patience = ["--stall-timeout", "500ms"];
    for (what, script) in [
        ("one stream stalls", Script::with_fault(Streams::Only(2), Fault::StallsAfter(100_000))),
        ("all streams stall", Script::with_fault(Streams::Every, Fault::StallsAfter(0))),
        ("no answer", Script::answering(Answering::Nothing)),
        (
            "one stream stalls after its first byte",
            Script::with_fault(Streams::Only(0), Fault::StallsAfter(1)),
        ),
    ] {
        check_bad_server(what, &script, MIB, &patience, &[10]);
    }
}

/// Ends a server with `signal` while a client writes its output, in either protocol.
fn check_server_ended(signal: Signal) {
    for protocol in ["1", "2"] {
        check_server_ended_in(protocol, signal);
    }
}

/// Ends a server while a client writes its output: caught between its first and its last byte.
fn check_server_ended_in(protocol: &str, signal: Signal) {
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, 200 * MIB);
    let output = workspace.output("out");
    for _ in 0..10 {
        fs::write(&output, BEFORE).expect("it is written");
        let server = PROGRAMS.serve(&workspace.root()).options(["--drain-timeout", "100ms"]).ready();
        // Its digest is known from then on, so that the client's time is that of the streams.
        drop(Ask::new(server.addr, "f", 1).answer());
        let run = PROGRAMS.fetch(server.addr, 8, "f", &output);
        let mut client = run.options(["--protocol", protocol, "--retries", "1"]).start();
        // It gets its length when the server has answered.
        let begun = || fs::metadata(workspace.output("out.dtpart")).is_ok_and(|part| part.len() > 0);
        until_true("the part file", || begun() || client.has_ended());
        client.signal(Signal::STOP);
        server.stop(signal, Duration::from_secs(10));
        client.signal(Signal::CONT);
        let outcome = client.finish_within(PATIENCE);
        if outcome.code == Some(0) {
            // It had all the bytes already; try again.
            continue;
        }
        outcome.assert_failure(4);
        // In protocol 2 what was verified until then is saved.
        let kept = if outcome.stderr.contains(SAVED) { vec!["out.dtjournal", "out.dtpart"] } else { vec![] };
        assert!(kept.is_empty() || protocol == "2", "{outcome}");
        workspace.assert_outputs(&[&["out"][..], &kept].concat());
        assert_eq!(fs::read(&output).expect("it is there"), BEFORE);
        return;
    }
    panic!("the client was never caught in the middle");
}

#[test]
fn killed_server_fails_the_transfer() {
    check_server_ended(Signal::KILL);
}

#[test]
fn terminated_server_fails_the_transfer() {
    check_server_ended(Signal::TERM);
}

/// A stream that the server cuts off must not look like one that is complete.
#[test]
fn stream_cut_off_by_shutdown_is_reset() {
    let workspace = Workspace::new();
    let content = workspace.serve_pattern("f", 1, 100 * MIB);
    let server = PROGRAMS.serve(&workspace.root()).options(["--drain-timeout", "100ms"]).ready();
    let mut stream = Ask::new(server.addr, "f", 1).offer().open(0);
    stream.read_exact(&mut [0; 1000]).expect("it begins");
    server.stop(Signal::TERM, Duration::from_secs(10)).assert_success();
    let rest = read_to_end(&stream);
    assert_eq!(rest.end, End::Reset);
    assert!(rest.bytes.len() < content.len() - 1000 && content[1000..].starts_with(&rest.bytes));
}
