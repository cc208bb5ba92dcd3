//! Servers that die, end or come back while a transfer runs.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use dt_testkit::events::{Events, number};
use dt_testkit::fetched::assert_fetched;
use dt_testkit::process::Process;
use dt_testkit::programs::Server;
use dt_testkit::session::Session;
use dt_testkit::sockets::is_refused;
use dt_testkit::wait::{PATIENCE, until_true};
use dt_testkit::workspace::Workspace;
use rustix::process::Signal;

use crate::{MIB, PROGRAMS, fetch, served, until_verified};

const STREAMS: u8 = 4;
const LEN: usize = 24 * MIB;

/// A transfer of three seconds that has begun.
fn in_the_middle() -> (Workspace, Server, Vec<u8>, Process) {
    let (workspace, server, content) = served(LEN);
    let mut client = fetch(server.addr, STREAMS, &workspace).options(["--limit-rate", "8M"]).start();
    until_verified(&mut client, 3 << 20);
    (workspace, server, content, client)
}

/// Ends the transfer's server, starts another on the same port after `pause`, and sees the client through.
fn check_restart(what: &str, signal: Signal, pause: Duration) {
    let (workspace, server, content, client) = in_the_middle();
    let block = Session::request(server.addr, "f", 1).block;
    let port = server.addr.port();
    let first = if signal == Signal::KILL {
        server.stop(signal, PATIENCE);
        None
    } else {
        server.process().signal(signal);
        until_true("the port is free", || is_refused(server.addr));
        Some(server)
    };
    sleep(pause);
    let second = PROGRAMS.serve(&workspace.root()).ready_on(port);
    let outcome = client.finish_within(Duration::from_secs(60));
    let finished = assert_fetched(&outcome, &workspace.output("out"), &content, what);
    assert!(number(&finished, "streams_lost") >= 1, "{what}: {finished}");
    let again = number(&finished, "received") - u64::try_from(LEN).expect("it fits");
    assert!(again <= 2 * u64::from(STREAMS) * block, "{what}: {again} bytes were fetched again");
    assert_eq!(Events::of(&outcome).count("started"), 1, "{what}: {outcome}");
    if let Some(first) = first {
        first.stop(Signal::TERM, PATIENCE).assert_success();
    }
    second.stop(Signal::TERM, PATIENCE).assert_success();
}

#[test]
fn a_server_killed_and_started_again() {
    check_restart("killed", Signal::KILL, Duration::ZERO);
    check_restart("killed, back after a second", Signal::KILL, Duration::from_secs(1));
}

#[test]
fn a_server_that_drains_and_its_successor() {
    check_restart("terminated", Signal::TERM, Duration::ZERO);
    check_restart("terminated, the next one after a second", Signal::TERM, Duration::from_secs(1));
}

#[test]
fn a_server_that_never_comes_back() {
    for signal in [Signal::KILL, Signal::TERM] {
        let (workspace, server, _) = served(LEN);
        let run = fetch(server.addr, STREAMS, &workspace).options(["--limit-rate", "8M", "--retries", "2"]);
        let mut client = run.start();
        until_verified(&mut client, 3 << 20);
        server.stop(signal, PATIENCE);
        let outcome = client.finish_within(Duration::from_secs(60));
        outcome.assert_failure(4);
        // What was verified is worth keeping.
        workspace.assert_outputs(&["out.dtjournal", "out.dtpart"]);
    }
}

/// A server that stands still and goes on again: nothing but time is lost.
#[test]
fn a_server_that_halts_for_a_moment() {
    let (workspace, server, content, client) = in_the_middle();
    server.process().signal(Signal::STOP);
    sleep(Duration::from_millis(700));
    server.process().signal(Signal::CONT);
    let outcome = client.finish_within(Duration::from_secs(60));
    assert_fetched(&outcome, &workspace.output("out"), &content, "halted");
}

#[test]
fn a_client_that_halts_for_a_moment() {
    let (workspace, _server, content, client) = in_the_middle();
    client.signal(Signal::STOP);
    sleep(Duration::from_millis(700));
    client.signal(Signal::CONT);
    let outcome = client.finish_within(Duration::from_secs(60));
    assert_fetched(&outcome, &workspace.output("out"), &content, "halted");
}

/// The successor serves another version of the file: never a mix.
#[test]
fn a_successor_with_another_file() {
    let (workspace, server, _, client) = in_the_middle();
    let port = server.addr.port();
    server.stop(Signal::KILL, PATIENCE);
    workspace.serve_pattern("f", 2, LEN);
    let _second = PROGRAMS.serve(&workspace.root()).ready_on(port);
    let outcome = client.finish_within(Duration::from_secs(60));
    outcome.assert_failure(11);
    assert!(!workspace.output("out").exists());
    // What is there is of the first version, with which the command as it was cannot go on.
    assert!(outcome.error().contains("--no-resume") && !outcome.error().contains("to go on"), "{outcome}");
}

/// The successor has no such file any more.
#[test]
fn a_successor_without_the_file() {
    let (workspace, server, _, client) = in_the_middle();
    let port = server.addr.port();
    server.stop(Signal::KILL, PATIENCE);
    fs::remove_file(workspace.root().join("f")).expect("it is removed");
    let _second = PROGRAMS.serve(&workspace.root()).ready_on(port);
    let outcome = client.finish_within(Duration::from_secs(60));
    assert!(matches!(outcome.code, Some(3 | 11)), "{outcome}");
    assert!(!workspace.output("out").exists());
}

/// A server that ends with clients at work ends in time, and leaves no port behind.
#[test]
fn a_server_that_ends_in_time() {
    let (workspace, server, _) = served(LEN);
    let mut client = fetch(server.addr, STREAMS, &workspace).options(["--limit-rate", "2M"]).start();
    until_verified(&mut client, 1);
    let addr = server.addr;
    let outcome = server.stop(Signal::TERM, Duration::from_secs(8));
    outcome.assert_success();
    assert!(is_refused(addr), "the port is still open");
    assert!(!outcome.stderr.contains("panicked"), "{outcome}");
}
