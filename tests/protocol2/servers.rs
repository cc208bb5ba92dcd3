//! Servers that die, end or restart while a transfer runs.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use dt_testkit::events::{Events, number};
use dt_testkit::fetched::assert_fetched;
use dt_testkit::messages::TO_RESUME;
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
fn transfer_survives_a_killed_and_restarted_server() {
    check_restart("killed", Signal::KILL, Duration::ZERO);
    check_restart("killed, back after a second", Signal::KILL, Duration::from_secs(1));
}

#[test]
fn transfer_moves_from_a_draining_server_to_the_next() {
    check_restart("terminated", Signal::TERM, Duration::ZERO);
    check_restart("terminated, the next one after a second", Signal::TERM, Duration::from_secs(1));
}

#[test]
fn lost_server_ends_the_transfer_and_saves_it() {
    for signal in [Signal::KILL, Signal::TERM] {
        let (workspace, server, _) = served(LEN);
        let run = fetch(server.addr, STREAMS, &workspace).options(["--limit-rate", "8M", "--retries", "2"]);
        let mut client = run.start();
        until_verified(&mut client, 3 << 20);
        server.stop(signal, PATIENCE);
        let outcome = client.finish_within(Duration::from_secs(60));
        outcome.assert_failure(4);
        // Verified blocks are saved.
        workspace.assert_outputs(&["out.dtjournal", "out.dtpart"]);
    }
}

/// A server that is paused costs nothing but time.
#[test]
fn paused_server_costs_only_time() {
    let (workspace, server, content, client) = in_the_middle();
    server.process().signal(Signal::STOP);
    sleep(Duration::from_millis(700));
    server.process().signal(Signal::CONT);
    let outcome = client.finish_within(Duration::from_secs(60));
    assert_fetched(&outcome, &workspace.output("out"), &content, "halted");
}

#[test]
fn paused_client_costs_only_time() {
    let (workspace, _server, content, client) = in_the_middle();
    client.signal(Signal::STOP);
    sleep(Duration::from_millis(700));
    client.signal(Signal::CONT);
    let outcome = client.finish_within(Duration::from_secs(60));
    assert_fetched(&outcome, &workspace.output("out"), &content, "halted");
}

/// The successor serves another version of the file: never a mix.
#[test]
fn restarted_server_with_another_file_ends_the_transfer() {
    let (workspace, server, _, client) = in_the_middle();
    let port = server.addr.port();
    server.stop(Signal::KILL, PATIENCE);
    workspace.serve_pattern("f", 2, LEN);
    let _second = PROGRAMS.serve(&workspace.root()).ready_on(port);
    let outcome = client.finish_within(Duration::from_secs(60));
    outcome.assert_failure(11);
    assert!(!workspace.output("out").exists());
    // What is saved is of the first version, which the same command cannot resume.
    assert!(outcome.error().contains("--no-resume") && !outcome.error().contains(TO_RESUME), "{outcome}");
}

/// The successor has no such file any more.
#[test]
fn restarted_server_without_the_file_ends_the_transfer() {
    let (workspace, server, _, client) = in_the_middle();
    let port = server.addr.port();
    server.stop(Signal::KILL, PATIENCE);
    fs::remove_file(workspace.root().join("f")).expect("it is removed");
    let _second = PROGRAMS.serve(&workspace.root()).ready_on(port);
    let outcome = client.finish_within(Duration::from_secs(60));
    assert!(matches!(outcome.code, Some(3 | 11)), "{outcome}");
    assert!(!workspace.output("out").exists());
}

/// A server with active clients ends in time, and closes its port.
#[test]
fn busy_server_shuts_down_in_time() {
    let (workspace, server, _) = served(LEN);
    let mut client = fetch(server.addr, STREAMS, &workspace).options(["--limit-rate", "2M"]).start();
    until_verified(&mut client, 1);
    let addr = server.addr;
    let outcome = server.stop(Signal::TERM, Duration::from_secs(8));
    outcome.assert_success();
    assert!(is_refused(addr), "the port is still open");
    assert!(!outcome.stderr.contains("panicked"), "{outcome}");
}
