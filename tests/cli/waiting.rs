//! What a user sees and gets while a server does not answer, is busy, or is lost.

use std::fs;
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use dt_testkit::events::Events;
use dt_testkit::original_server::{Answering, Script};
use dt_testkit::process::{Outcome, Process};
use dt_testkit::sockets::LateListener;
use dt_testkit::wait::until_true;
use dt_testkit::workspace::Workspace;

use crate::{MIB, PROGRAMS, original};

#[test]
fn long_wait_is_shown_every_ten_seconds_and_has_an_end() {
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, MIB);
    let mute = original(&workspace, Script::answering(Answering::Nothing));
    let run = PROGRAMS.fetch(mute.addr, 4, "f", workspace.output("out")).options(["--stall-timeout", "12s"]);
    let outcome = run.run();
    assert_eq!(outcome.code, Some(10), "{outcome}");
    let lines: Vec<&str> = outcome.stderr.lines().collect();
    let [waiting, error] = lines[..] else { panic!("{outcome}") };
    assert!(waiting.starts_with(&format!("waiting for an answer from {}, ", mute.addr)), "{outcome}");
    assert!(error.contains("no answer") && error.contains("--protocol 1"), "{outcome}");
}

/// An address of the name that accepts connections and never answers does not keep the client from the others for long.
#[test]
fn next_address_of_a_name_is_tried() {
    let workspace = Workspace::new();
    let content = workspace.serve_pattern("f", 1, MIB);
    let server = PROGRAMS.server().args(["--bind", "127.0.0.2", "--root"]).args([workspace.root()]).ready();
    let mute = TcpListener::bind(("127.0.0.1", server.addr.port())).expect("the port is free there");
    let hosts = workspace.path().join("hosts");
    fs::write(&hosts, "127.0.0.1 two.test\n127.0.0.2 two.test\n").expect("it is written");
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", "mount --bind \"$1\" /etc/hosts && shift && exec \"$@\"", "sh"]);
    command.arg(&hosts).arg(PROGRAMS.client).arg("-v");
    command.arg(format!("two.test:{}", server.addr.port())).args(["4", "f"]).arg(workspace.output("out"));
    let outcome = Process::start(command, "dtclient", None).finish_within(Duration::from_secs(20));
    if outcome.stderr.contains("unshare failed") {
        eprintln!("skipped: a mount namespace needs root: {outcome}");
        return;
    }
    outcome.assert_success();
    assert!(fs::read(workspace.output("out")).expect("it is there") == content);
    for addr in [mute.local_addr().expect("it is bound"), server.addr] {
        assert!(outcome.stderr.contains(&format!("connected to {addr}")), "{outcome}");
    }
}

#[test]
fn busy_server_is_asked_again_and_then_reported() {
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, MIB);
    for (status, reason) in [(429, "Too Many Requests"), (502, "Bad Gateway"), (503, "Service Unavailable")] {
        let busy = original(&workspace, Script::answering(Answering::Status(status, reason)));
        let run = PROGRAMS.fetch(busy.addr, 4, "f", workspace.output("out"));
        let outcome = run.options(["--json", "--retries", "2"]).run();
        outcome.assert_failure(5);
        let events = Events::of(&outcome);
        assert_eq!(busy.requests().len(), 3, "{outcome}");
        assert_eq!(events.count("retrying"), 2, "{outcome}");
        assert_eq!(events.last("retrying").expect("there are two")["of"], 2, "{outcome}");
        assert_eq!(events.only("failed", &["error"])["code"], "busy", "{outcome}");
    }
    workspace.assert_outputs(&[]);
}

#[test]
fn server_that_is_not_up_yet_is_awaited_if_asked_for() {
    let workspace = Workspace::new();
    let content = workspace.serve_pattern("f", 1, MIB);
    for limit in ["30s", "0"] {
        let late = LateListener::bind();
        let addr = late.addr();
        PROGRAMS.fetch(addr, 4, "f", workspace.output("out")).run().assert_failure(4);
        let run = PROGRAMS.fetch(addr, 4, "f", workspace.output("out")).options(["--retry-time", limit]);
        let client = run.start();
        until_true("the client retries", || client.stderr().contains("retrying (3)"));
        drop(late);
        let server = PROGRAMS.serve(&workspace.root()).ready_on(addr.port());
        client.finish_within(Duration::from_secs(20)).assert_success();
        assert!(fs::read(workspace.output("out")).expect("it is there") == content);
        fs::remove_file(workspace.output("out")).expect("it is there");
        drop(server);
    }
    let run = PROGRAMS.fetch(LateListener::bind().addr(), 4, "f", workspace.output("out"));
    let outcome = run.options(["--retry-time", "1s"]).run();
    assert_eq!(outcome.code, Some(4), "{outcome}");
}

/// Runs `dtclient` on a terminal of this type with so many columns, and returns what the terminal gets.
fn on_terminal(term: &str, columns: u32, args: &str) -> Outcome {
    let client = PROGRAMS.client;
    let mut script = Command::new("script");
    script
        .args(["-qefc", &format!("stty rows 24 cols {columns}; exec {client} {args}"), "/dev/null"])
        .env("TERM", term);
    Process::start(script, "script", None).finish_within(Duration::from_secs(30))
}

#[test]
fn progress_fits_into_the_terminal() {
    let workspace = Workspace::new();
    workspace.serve_pattern("debian-13.2.0-amd64-netinst.iso", 1, 3 * MIB);
    let server = PROGRAMS.serve(&workspace.root()).ready();
    for columns in [40, 80, 132] {
        let args = format!(
            "--no-resume --limit-rate 2M {} 4 debian-13.2.0-amd64-netinst.iso {}",
            server.addr,
            workspace.output("out").display()
        );
        let outcome = on_terminal("xterm", columns, &args);
        let text = String::from_utf8_lossy(&outcome.stdout).into_owned();
        let drawn: Vec<&str> = text.split(['\r', '\n']).filter(|line| line.contains("ETA")).collect();
        assert!(!drawn.is_empty(), "{columns}: {text:?}");
        for line in drawn {
            let shown = without_escapes(line);
            assert!(
                shown.chars().count() <= usize::try_from(columns).expect("it fits"),
                "{columns}: {shown:?}"
            );
            assert!(shown.contains("iB/s") || shown.contains("-- B/s"), "{columns}: {shown:?}");
            assert!(columns < 80 || shown.contains("debian-13"), "{columns}: {shown:?}");
        }
    }
}

#[test]
fn terminal_that_cannot_draw_gets_lines() {
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, MIB);
    let server = PROGRAMS.serve(&workspace.root()).ready();
    let args = format!("-v {} 4 f {}", server.addr, workspace.output("out").display());
    let outcome = on_terminal("dumb", 80, &args);
    let text = String::from_utf8_lossy(&outcome.stdout).into_owned();
    assert!(text.contains("connected to") && text.contains("verified"), "{text:?}");
    assert!(!text.contains('\u{1b}'), "{text:?}");
}

/// The text without the sequences that move the cursor and set colours.
fn without_escapes(text: &str) -> String {
    let mut shown = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            chars.by_ref().find(char::is_ascii_alphabetic);
        } else {
            shown.push(c);
        }
    }
    shown
}
