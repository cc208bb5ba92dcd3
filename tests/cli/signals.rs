//! How the programs end on a signal, and that nothing of them remains.

use std::fs::{self, File};
use std::io::Read;
use std::time::Duration;

use dt_testkit::original_client::Ask;
use dt_testkit::original_server::{Answering, Fault, Script, Streams};
use dt_testkit::pipe::Pipe;
use dt_testkit::process::Outcome;
use dt_testkit::programs::Run;
use dt_testkit::sockets::{connect, is_refused};
use dt_testkit::wait::{PATIENCE, until_true};
use dt_testkit::workspace::{Workspace, files_in};
use rustix::process::Signal;

use crate::{BEFORE, MIB, PROGRAMS, original};

const SIGNALS: [Signal; 3] = [Signal::INT, Signal::TERM, Signal::HUP];

/// The exit code of a program that a signal ends, as a shell reports it.
fn exit_code(signal: Signal) -> i32 {
    128 + signal.as_raw()
}

/// Interrupts a client that cannot get any further; nothing of it may stay.
fn check_interrupted(what: &str, workspace: &Workspace, run: &dyn Fn() -> Run, ready: &dyn Fn() -> bool) {
    for signal in SIGNALS {
        fs::write(workspace.output("out"), BEFORE).expect("it is written");
        let client = run().start();
        until_true(what, ready);
        client.signal(signal);
        let outcome = client.finish_within(Duration::from_secs(5));
        assert_eq!(outcome.code, Some(exit_code(signal)), "{what}, {signal:?}: {outcome}");
        outcome.assert_failure(exit_code(signal));
        workspace.assert_outputs(&["out"]);
        assert_eq!(fs::read(workspace.output("out")).expect("it is there"), BEFORE, "{what}");
    }
}

#[test]
fn interrupted_client_leaves_nothing() {
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, 3 * MIB);
    for engine in ["map", "write"] {
        let stalling = Script::with_fault(Streams::Only(2), Fault::StallsAfter(100_000));
        for (what, script, streams) in [
            ("while it receives", stalling, 4),
            ("while it waits for the answer", Script::answering(Answering::Nothing), 0),
        ] {
            // A server for each signal: its requests and streams show how far the client is.
            let server = std::cell::RefCell::new(original(&workspace, script.clone()));
            let run = || {
                *server.borrow_mut() = original(&workspace, script.clone());
                PROGRAMS
                    .fetch(server.borrow().addr, 4, "f", workspace.output("out"))
                    .options(["--engine", engine])
            };
            let ready = || {
                let server = server.borrow();
                server.requests().len() == 1
                    && server.ids().len() == streams
                    && (streams == 0 || files_in(&workspace.outputs()).len() == 2)
            };
            check_interrupted(what, &workspace, &run, &ready);
        }
    }
}

/// From the moment a client can be seen at work, an interrupt must find its handler.
#[test]
fn client_can_be_interrupted_at_once() {
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, MIB);
    let mut failures = Vec::new();
    for round in 0..100 {
        let server = original(&workspace, Script::answering(Answering::Nothing));
        let client = PROGRAMS.fetch(server.addr, 4, "f", workspace.output("out")).start();
        let at_work = || !server.requests().is_empty() || !files_in(&workspace.outputs()).is_empty();
        until_true("the part file or the request", at_work);
        let signal = SIGNALS[round % SIGNALS.len()];
        client.signal(signal);
        let outcome = client.finish_within(Duration::from_secs(5));
        let left = files_in(&workspace.outputs());
        if outcome.code != Some(exit_code(signal)) || !left.is_empty() {
            failures.push(format!("round {round}: {outcome}, remaining: {left:?}"));
        }
        for name in left {
            fs::remove_file(workspace.output(&name)).expect("it is ours");
        }
    }
    assert!(failures.is_empty(), "{} of 100: {failures:#?}", failures.len());
}

#[test]
fn client_writing_to_a_full_pipe_can_be_interrupted() {
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, 30 * MIB);
    let server = PROGRAMS.serve(&workspace.root()).ready();
    for signal in SIGNALS {
        let fifo = workspace.output("pipe");
        let mut pipe = Pipe::make(&fifo);
        let client = PROGRAMS.fetch(server.addr, 4, "f", &fifo).start();
        pipe.first_byte();
        client.signal(signal);
        client.finish_within(Duration::from_secs(5)).assert_failure(exit_code(signal));
        fs::remove_file(&fifo).expect("it is still there");
        workspace.assert_outputs(&[]);
    }
}

#[test]
fn closed_reader_ends_the_client() {
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, 30 * MIB);
    let server = PROGRAMS.serve(&workspace.root()).ready();
    let fifo = workspace.output("pipe");
    let mut pipe = Pipe::make(&fifo);
    let client = PROGRAMS.fetch(server.addr, 4, "f", &fifo).start();
    pipe.first_byte();
    drop(pipe);
    client.finish_within(PATIENCE).assert_failure(8);
    workspace.assert_outputs(&["pipe"]);
}

#[test]
fn terminated_server_leaves_nothing() {
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, 30 * MIB);
    for signal in SIGNALS {
        let idle = PROGRAMS.serve(&workspace.root()).ready();
        let addr = idle.addr;
        let outcome = idle.stop(signal, Duration::from_secs(3));
        outcome.assert_success();
        assert_eq!(
            String::from_utf8_lossy(&outcome.stdout).lines().count(),
            1,
            "only the ready line: {outcome}"
        );
        assert!(is_refused(addr));

        let busy = PROGRAMS.serve(&workspace.root()).options(["--drain-timeout", "500ms"]).ready();
        let mute = connect(busy.addr);
        let offer = Ask::new(busy.addr, "f", 4).offer();
        let unread = offer.open(0);
        let mute_stream = connect(offer.data);
        let outcome = busy.stop(signal, Duration::from_secs(5));
        outcome.assert_success();
        outcome_has_no_panic(&outcome);
        drop((mute, unread, mute_stream));
        assert!(is_refused(offer.data));
    }
}

/// As under `nohup`, and in the background of a shell without job control.
#[test]
fn ignored_signals_stay_ignored() {
    let workspace = Workspace::new();
    let content = workspace.serve_pattern("f", 1, 30 * MIB);
    let server = PROGRAMS.serve(&workspace.root()).ignoring("HUP INT").ready();
    let client = PROGRAMS
        .fetch(server.addr, 4, "f", workspace.output("out"))
        .options(["--limit-rate", "20M"])
        .ignoring("HUP INT")
        .start();
    until_true("the part file", || !files_in(&workspace.outputs()).is_empty());
    for signal in [Signal::HUP, Signal::INT] {
        server.process().signal(signal);
        client.signal(signal);
    }
    client.finish_within(PATIENCE).assert_success();
    assert!(fs::read(workspace.output("out")).expect("it is there") == content);
    server.stop(Signal::TERM, Duration::from_secs(3)).assert_success();
}

/// Neither the serving thread nor the shutdown may wait for a log that is not read.
#[test]
fn unread_log_does_not_block_the_server() {
    let workspace = Workspace::new();
    let content = workspace.serve_pattern("f", 1, MIB);
    let log = workspace.output("log");
    let _unread = Pipe::make(&log);
    let run = PROGRAMS.serve(&workspace.root()).env("TOKIO_WORKER_THREADS", "1").stderr_into(&log);
    // Else they would be summed up.
    let run = run.options(["-v"]);
    let server = run.ready();
    // Far more than the pipe holds.
    for _ in 0..500 {
        Ask::new(server.addr, "x".repeat(300), 1).answer().assert_refusal(&[404], "a name too long");
    }
    assert!(Ask::new(server.addr, "f", 4).offer().download() == content);
    server.stop(Signal::TERM, Duration::from_secs(5)).assert_success();
}

fn outcome_has_no_panic(outcome: &Outcome) {
    assert!(!outcome.stderr.contains("panicked"), "{outcome}");
}

/// A transfer that is nearly over may end; new ones are not begun.
#[test]
fn server_drains_on_a_signal() {
    let workspace = Workspace::new();
    let content = workspace.serve_pattern("f", 1, 30 * MIB);
    let server = PROGRAMS.serve(&workspace.root()).options(["--drain-timeout", "20s"]).ready();
    let addr = server.addr;
    let offer = Ask::new(server.addr, "f", 1).offer();
    let mut stream = offer.open(0);
    let mut received = vec![0; 1000];
    stream.read_exact(&mut received).expect("it begins");
    server.process().signal(Signal::TERM);
    until_true("no new requests", || is_refused(addr));
    received.extend(dt_testkit::sockets::read_to_end(&stream).bytes);
    assert!(received == content, "the running stream goes on: {} bytes", received.len());
    server.stop(Signal::TERM, PATIENCE).assert_success();
}

/// A file that takes minutes to hash must not keep the server from ending, nor other requests from their answers.
#[test]
fn hashing_server_can_be_terminated() {
    let workspace = Workspace::new();
    let small = workspace.serve_pattern("small", 1, MIB);
    let huge = File::create(workspace.root().join("huge")).expect("it is made");
    huge.set_len(200 << 30).expect("a sparse file");
    let server = PROGRAMS.serve(&workspace.root()).options(["--drain-timeout", "500ms"]).ready();
    let run = PROGRAMS.fetch(server.addr, 4, "huge", workspace.output("out"));
    let client = run.options(["--protocol", "1"]).start();
    until_true("the server reads", || {
        let io = fs::read_to_string(format!("/proc/{}/io", server.process().id())).expect("it may be read");
        let rchar = io.lines().find_map(|line| line.strip_prefix("rchar: ")?.parse::<u64>().ok());
        rchar.is_some_and(|n| n > 50 << 20)
    });
    assert!(Ask::new(server.addr, "small", 4).offer().download() == small);
    server.stop(Signal::TERM, Duration::from_secs(5)).assert_success();
    // It hears from the server that it ends, or nothing at all.
    let outcome = client.finish_within(PATIENCE);
    assert!(matches!(outcome.code, Some(1 | 4)), "{outcome}");
    outcome.assert_one_line("dtclient: ");
    workspace.assert_outputs(&[]);
}
