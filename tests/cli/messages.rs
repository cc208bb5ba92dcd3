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
    let root = server.line.rsplit_once(", serving ").expect("it is in the ready line").1.to_owned();
    assert_eq!(Path::new(&root).canonicalize().ok(), workspace.root().canonicalize().ok(), "{}", server.line);
    Ask::new(server.addr, "f", 2).offer().download();
    Ask::new(server.addr, "missing\u{1b}[31m", 2).answer().assert_refusal(&[404], "missing");
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
    for line in json.stderr.lines() {
        let value: Result<serde_json::Value, _> = serde_json::from_str(line);
        assert!(value.is_ok_and(|value| value.is_object()), "no JSON: {line:?}");
    }
    let [plain, verbose] =
        [["--log-format", "text"].as_slice(), &["-v"]].map(|options| logged(options).stderr);
    assert!(
        plain.lines().count() > 0 && verbose.lines().count() > plain.lines().count(),
        "{plain:?}, {verbose:?}"
    );
}

/// Programs read who fetched what, how much and how fast, and who was refused; and what began and ended the server.
#[test]
fn log_has_a_line_for_each_transfer_with_types() {
    let workspace = Workspace::new();
    workspace.serve_pattern("a b", 1, MIB);
    for format in ["json", "text"] {
        let server = PROGRAMS.serve(&workspace.root()).options(["--log-format", format]).ready();
        PROGRAMS.fetch(server.addr, 2, "a b", workspace.output("out")).run().assert_success();
        for name in ["missing%20", "m=1"] {
            PROGRAMS.fetch(server.addr, 2, name, workspace.output("no")).run().assert_failure(3);
        }
        let outcome = server.stop(Signal::TERM, PATIENCE);
        outcome.assert_success();
        for line in outcome.stderr.lines() {
            assert!(!line.contains(['{', '}']) || format == "json", "{line}");
            assert!(line.contains("event") && !line.contains("Some("), "{line}");
        }
        if format == "text" {
            let has = |text| assert!(outcome.stderr.contains(text), "{text}: {outcome}");
            ["event=transfer_finished", "path=\"a b\" ", " bytes=1048576 ", " outcome=finished"].map(has);
            ["event=listening", "event=stopped signal=SIGTERM", "path=\"m=1\""].map(has);
            continue;
        }
        let lines = outcome.stderr.lines().map(|line| serde_json::from_str(line).expect("it is JSON"));
        let lines: Vec<serde_json::Value> = lines.collect();
        let line = |event: &str| lines.iter().find(|line| line["event"] == event).expect("it is logged");
        assert_eq!(line("listening")["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(line("stopped")["signal"], "SIGTERM");
        let finished = line("transfer_finished");
        assert_eq!((&finished["path"], finished["bytes"].as_u64()), (&"a b".into(), Some(1 << 20)));
        assert!(finished["seconds"].is_f64() && finished["rate"].as_u64() > Some(0), "{finished}");
        let peer: std::net::SocketAddr =
            finished["peer"].as_str().expect("text").parse().expect("an address");
        assert!(peer.ip().is_loopback(), "{peer}");
        let refused = lines.iter().filter(|line| line["event"] == "request_refused");
        assert_eq!(refused.count(), 2, "each name is found: {outcome}");
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
