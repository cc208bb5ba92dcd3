//! The events of `--json`: their order, and what they say.

use std::fs;

use dt_testkit::events::{Events, number};
use dt_testkit::fetched::blake3_of;
use dt_testkit::sockets::LateListener;
use dt_testkit::wait::PATIENCE;
use rustix::process::Signal;

use crate::{MIB, PROGRAMS, fetch, served, until_verified};

#[test]
fn events_of_a_transfer_are_in_order() {
    let (workspace, server, content) = served(6 * MIB);
    let outcome = fetch(server.addr, 4, &workspace).options(["--limit-rate", "4M"]).run();
    outcome.assert_success();
    let events = Events::of(&outcome);
    let names = events.names();
    let place = |name: &str| names.iter().position(|known| *known == name);
    assert!(place("connected") < place("started") && place("started") < place("progress"), "{names:?}");
    assert!(place("connected").is_some() && place("progress").is_some(), "{names:?}");
    let connected = events.only("connected", &["server"]);
    assert!(connected["server"].as_str().is_some_and(|server_name| server_name.contains("127.0.0.1")));
    let started = events.only("started", &["protocol", "size", "streams", "block", "resumed"]);
    let size = 6 << 20;
    assert_eq!((number(started, "size"), number(started, "streams")), (size, 4), "{started}");
    assert_eq!((number(started, "protocol"), number(started, "resumed")), (2, 0), "{started}");
    assert!(number(started, "block").is_power_of_two() && number(started, "block") >= 16 << 10, "{started}");
    let mut before = (0.0, 0, 0);
    for progress in events.named("progress") {
        let now = (
            progress["seconds"].as_f64().expect("a number"),
            number(progress, "received"),
            number(progress, "verified"),
        );
        assert!(now.0 >= before.0 && now.1 >= before.1 && now.2 >= before.2, "{before:?}, {progress}");
        assert!(now.2 <= now.1 && now.2 <= size && number(progress, "size") == size, "{progress}");
        assert!(number(progress, "open_streams") <= 4, "{progress}");
        before = now;
    }
    let finished = events.finished();
    assert_eq!(finished["blake3"], blake3_of(&content));
    assert!(finished["output"].as_str().is_some_and(|output| output.ends_with("out")), "{finished}");
}

#[test]
fn failure_is_an_event() {
    let (workspace, server, _) = served(MIB);
    let nobody = LateListener::bind();
    for (addr, file, code) in [(server.addr, "missing", 3), (nobody.addr(), "f", 4)] {
        let run = PROGRAMS.fetch(addr, 4, file, workspace.output("out"));
        let outcome = run.options(["--json", "--retries", "0"]).run();
        outcome.assert_failure(code);
        let events = Events::of(&outcome);
        let failed = events.only("failed", &["exit", "error"]);
        assert_eq!(failed["exit"], code, "{failed}");
        let error = failed["error"].as_str().expect("a text");
        assert!(!error.is_empty() && !error.contains('\n'), "{failed}");
    }
    fs::write(workspace.output("out"), "before").expect("it is written");
    let outcome = fetch(server.addr, 4, &workspace).options(["--no-clobber"]).run();
    assert_eq!(Events::of(&outcome).only("failed", &["error"])["exit"], 13);
    fs::remove_file(workspace.output("out")).expect("it is ours");
}

#[test]
fn interrupt_is_an_event() {
    let (workspace, server, _) = served(8 * MIB);
    let mut client = fetch(server.addr, 4, &workspace).options(["--limit-rate", "4M"]).start();
    until_verified(&mut client, 1);
    client.signal(Signal::INT);
    let outcome = client.finish_within(PATIENCE);
    outcome.assert_failure(130);
    assert_eq!(Events::of(&outcome).only("failed", &["error"])["exit"], 130);
}

/// A reader of the events that exits, or never reads, does not fail the transfer.
#[test]
fn closed_event_reader_does_not_fail_the_transfer() {
    use std::process::{Command, Stdio};
    let (workspace, server, content) = served(6 * MIB);
    let (reader, writer) = std::io::pipe().expect("a pipe is made");
    let mut command = Command::new(PROGRAMS.client);
    command.args(["--json", "--limit-rate", "8M", &server.addr.to_string(), "4", "f"]);
    command.arg(workspace.output("out")).stdout(Stdio::from(writer)).stderr(Stdio::null());
    let mut child = command.spawn().expect("it starts");
    drop(reader);
    let code = dt_testkit::wait::until("its end", || child.try_wait().expect("it can be asked")).code();
    assert_eq!(code, Some(0));
    assert!(fs::read(workspace.output("out")).expect("it is there") == content);
}
