//! The messages of the programs, the streams on which they appear, and closed streams.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use dt_testkit::content::md5;
use dt_testkit::fetched::blake3_of;
use dt_testkit::original_client::Ask;
use dt_testkit::process::Outcome;
use dt_testkit::wait::{PATIENCE, until};
use dt_testkit::workspace::Workspace;
use rustix::process::Signal;

use crate::{MIB, PROGRAMS};

#[test]
fn success_is_summed_up() {
    let workspace = Workspace::new();
    let content = workspace.serve_pattern("f", 1, 3 * MIB);
    let server = PROGRAMS.serve(&workspace.root()).ready();
    let fetch = || PROGRAMS.fetch(server.addr, 4, "f", workspace.output("out"));
    let plain = fetch().run();
    plain.assert_success();
    assert_eq!(plain.stdout, b"");
    let last = plain.stderr.lines().last().unwrap_or_default();
    let blake3 = blake3_of(&content);
    for word in [blake3.as_str(), "/s", "3145728 bytes"] {
        assert!(last.contains(word), "{word:?} is missing in {last:?}");
    }
    let with_md5 = fetch().options(["--md5"]).run();
    assert!(with_md5.stderr.contains(&md5(&content)), "{with_md5}");
    assert!(!plain.stderr.contains(['\r', '\u{1b}']), "no bar without a terminal: {plain}");
    for quiet in ["-q", "--quiet"] {
        let outcome = fetch().options([quiet]).run();
        outcome.assert_success();
        assert_eq!((outcome.stderr.as_str(), outcome.stdout.as_slice()), ("", b"".as_slice()));
    }
    let refused = PROGRAMS.fetch(server.addr, 4, "missing", workspace.output("out")).options(["-q"]).run();
    refused.assert_failure(3);
    assert_eq!(refused.stderr.lines().count(), 1, "{refused}");
    for option in ["-v", "--verbose", "--sync"] {
        fetch().options([option]).run().assert_success();
        assert!(fs::read(workspace.output("out")).expect("it is there") == content);
    }
    workspace.assert_outputs(&["out"]);
}

/// Runs a server through a request granted and one refused, and gives its end.
fn logged(options: &[&str]) -> Outcome {
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, 1000);
    let server = PROGRAMS.serve(&workspace.root()).options(options).ready();
    let json = serde_json::from_str(&server.line).unwrap_or(serde_json::Value::Null);
    let text = server.line.rsplit_once(", serving ").map(|(_, root)| root);
    let root = json["root"].as_str().or(text).expect("it is in the ready line");
    assert_eq!(Path::new(root).canonicalize().ok(), workspace.root().canonicalize().ok(), "{}", server.line);
    Ask::new(server.addr, "f", 2).offer().download();
    Ask::new(server.addr, "miss\u{e9}ing\u{1b}[31m", 2).answer().assert_refusal(&[404], "missing");
    let line = format!("{}\n", server.line);
    let outcome = server.stop(Signal::TERM, PATIENCE);
    outcome.assert_success();
    assert_eq!(outcome.stdout, line.into_bytes(), "one line, and nothing else, on standard output");
    assert!(
        !outcome.stderr.contains('\u{1b}'),
        "a peer's control characters or colours in the log: {outcome}"
    );
    outcome
}

#[test]
fn server_logs_its_transfers() {
    let json = logged(&["-v", "--log-format", "json"]);
    assert!(json.stderr.lines().count() > 1, "{json}");
    let mut events = Vec::new();
    for line in json.stderr.lines() {
        let value: serde_json::Value = serde_json::from_str(line).expect("it is JSON");
        assert!(!line.contains("\\\""), "a debug string: {line}");
        events.push(value["event"].as_str().unwrap_or_else(|| panic!("no event: {line}")).to_owned());
        if value["event"] == "request_refused" {
            // Percent-encoded in the request.
            assert_eq!(value["path"], "miss\u{e9}ing\u{1b}[31m", "{line}");
        }
        if value["event"] == "transfer_finished" {
            assert_eq!(
                (&value["path"], &value["bytes"], &value["outcome"]),
                (&"f".into(), &1000.into(), &"finished".into())
            );
            assert!(value["peer"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")), "{line}");
            assert!(value["seconds"].is_f64() && value["rate"].is_u64(), "{line}");
        }
    }
    for event in ["starting", "transfer_started", "transfer_finished", "request_refused", "stopping"] {
        assert!(events.iter().any(|name| name == event), "{event}: {json}");
    }
    let [plain, verbose] =
        [["--log-format", "text"].as_slice(), &["-v"]].map(|options| logged(options).stderr);
    assert!(
        plain.lines().count() > 0 && verbose.lines().count() > plain.lines().count(),
        "{plain:?}, {verbose:?}"
    );
    for line in verbose.lines() {
        check_logfmt(line);
    }
    assert!(plain.contains("event=stopping signal=SIGTERM") && plain.contains("version="), "{plain}");
}

/// Each word is a key and a value, which is quoted if it is not a plain word.
#[track_caller]
fn check_logfmt(line: &str) {
    let mut rest = line;
    while !rest.is_empty() {
        let (key, value) = rest.split_once('=').unwrap_or_else(|| panic!("no value in {rest:?} of {line:?}"));
        assert!(key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{key:?} in {line:?}");
        let end = match value.strip_prefix('"') {
            Some(quoted) => {
                let mut is_escaped = false;
                let close = quoted.find(|c| {
                    let closes = c == '"' && !is_escaped;
                    is_escaped = c == '\\' && !is_escaped;
                    closes
                });
                close.unwrap_or_else(|| panic!("no end of {value:?} in {line:?}")) + 2
            }
            None => value.find(' ').unwrap_or(value.len()),
        };
        rest = value[end..].trim_start_matches(' ');
    }
}

/// A client that gives up, and one that is killed: one line says for each what became of the transfer.
#[test]
fn aborted_transfers_are_logged_with_what_was_sent() {
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, 30 * MIB);
    let server = PROGRAMS.serve(&workspace.root());
    let server = server.options(["--log-format", "json", "--session-expiry", "300ms"]).ready();
    for (signal, event, outcome) in
        [(Signal::INT, "transfer_failed", "client_left"), (Signal::KILL, "transfer_expired", "expired")]
    {
        let run = PROGRAMS.fetch(server.addr, 4, "f", workspace.output("out"));
        let client = run.options(["--limit-rate", "8M"]).start();
        until("blocks are saved", || {
            fs::metadata(workspace.output("out.dtjournal"))
                .is_ok_and(|journal| journal.len() > 600)
                .then_some(())
        });
        client.signal(signal);
        client.finish_within(PATIENCE);
        let line = until("the server's line", || {
            let log = server.process().stderr();
            log.lines().find(|line| line.contains(event)).map(str::to_owned)
        });
        let line: serde_json::Value = serde_json::from_str(&line).expect("it is JSON");
        assert_eq!(
            (&line["outcome"], &line["path"], &line["size"]),
            (&outcome.into(), &"f".into(), &(30 * MIB).into())
        );
        assert!(line["bytes"].as_u64().is_some_and(|bytes| bytes > 0) && line["seconds"].is_f64(), "{line}");
        for left in ["out.dtpart", "out.dtjournal"] {
            fs::remove_file(workspace.output(left)).expect("it is there");
        }
    }
}

/// A port that the server itself holds carries no transfer, which is found out at the start and not at a busy hour.
#[test]
fn own_port_among_the_transfer_ports_is_reported() {
    let workspace = Workspace::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|socket| socket.local_addr())
        .expect("a free port")
        .port();
    let range = format!("{port}-{}", port.saturating_add(1));
    let server = PROGRAMS.serve(&workspace.root()).options(["--transfer-ports", &range]).ready_on(port);
    until("a notice", || {
        server.process().stderr().contains("of --transfer-ports is that of the server itself").then_some(())
    });
}

/// Every client and every name stays findable, for programs that block clients which ask for what is not there.
#[test]
fn refusals_of_different_names_are_all_logged() {
    let workspace = Workspace::new();
    let server = PROGRAMS.serve(&workspace.root()).options(["--log-format", "json"]).ready();
    for n in 0..100 {
        Ask::new(server.addr, format!("missing{n}"), 2).answer().assert_refusal(&[404], "missing");
    }
    let outcome = server.stop(Signal::TERM, PATIENCE);
    for n in 0..100 {
        assert!(outcome.stderr.contains(&format!("\"missing{n}\"")), "{n}: {outcome}");
    }
}

/// One address can be refused a thousand times a second.
#[test]
fn flood_of_refusals_is_summed_up() {
    const REFUSALS: u64 = 300;
    let workspace = Workspace::new();
    let server = PROGRAMS.serve(&workspace.root()).options(["--log-format", "json"]).ready();
    for _ in 0..REFUSALS {
        Ask::new(server.addr, "missing", 2).answer().assert_refusal(&[404], "missing");
    }
    let outcome = server.stop(Signal::TERM, PATIENCE);
    outcome.assert_success();
    let lines = outcome.stderr.lines().map(|line| serde_json::from_str(line).expect("it is JSON"));
    let refused: Vec<serde_json::Value> =
        lines.filter(|line: &serde_json::Value| line["message"] == "request refused").collect();
    let times = refused.iter().map(|line| line["times"].as_u64().unwrap_or(1));
    assert_eq!(times.sum::<u64>(), REFUSALS, "{refused:#?}");
    // One at once, one each second, and one in the end.
    let most = usize::try_from(outcome.took.as_secs()).expect("it is not long") + 2;
    assert!((2..=most).contains(&refused.len()), "{} lines: {outcome}", refused.len());
}

/// A user who lets the system choose the port must learn which one it is, with or without a log.
#[test]
fn quiet_server_prints_only_its_address() {
    let quiet = logged(&["-q"]);
    assert_eq!(quiet.stderr, "");
}

/// A standard error that takes nothing is no reason to fail, and such a standard output is an error, not a panic.
#[test]
fn closed_standard_streams_are_harmless() {
    let workspace = Workspace::new();
    let content = workspace.serve_pattern("f", 1, MIB);
    let server = PROGRAMS.serve(&workspace.root()).ready();
    let full = || File::options().write(true).open("/dev/full").expect("it opens");
    let run = |output: &str, stdout: Stdio, stderr: Stdio| {
        let mut command = Command::new(PROGRAMS.client);
        command.args([&server.addr.to_string(), "4", "f", output]).current_dir(workspace.outputs());
        let mut child =
            command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).spawn().expect("it starts");
        until("its end", || child.try_wait().expect("it can be asked")).code()
    };
    assert_eq!(run("out", Stdio::null(), full().into()), Some(0), "nowhere to report to");
    assert!(fs::read(workspace.output("out")).expect("it is there") == content);
    assert_eq!(run("-", full().into(), Stdio::null()), Some(7), "a full standard output");
}
