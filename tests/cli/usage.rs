//! The arguments and variables that the programs accept, and the rejection of all others.

use std::fs;
use std::net::TcpListener;

use dt_testkit::content::md5;
use dt_testkit::original_client::Ask;
use dt_testkit::process::Outcome;
use dt_testkit::programs::Run;
use dt_testkit::wait::PATIENCE;
use dt_testkit::workspace::Workspace;

use crate::{MIB, PROGRAMS};

const NOWHERE: &str = "127.0.0.1:1";

fn check_text(what: &str, outcome: &Outcome, words: &[&str]) {
    outcome.assert_success();
    let text = String::from_utf8(outcome.stdout.clone()).expect("it is UTF-8");
    assert_eq!(outcome.stderr, "", "{what}: help belongs on standard output");
    for word in words {
        assert!(text.contains(word), "{what}: {word} is missing in {text}");
    }
}

#[test]
fn help_and_version_are_printed() {
    let client = [
        "<ADDRESS>",
        "<STREAMS>",
        "<FILE>",
        "[OUTPUT]",
        "--quiet",
        "--verbose",
        "--no-clobber",
        "--checksum",
        "--sync",
        "--engine",
        "--connect-timeout",
        "--stall-timeout",
        "--help",
        "--version",
        "DT_CHECKSUM",
    ];
    let server = [
        "<PORT>",
        "--root",
        "--bind",
        "--transfer-ports",
        "--max-streams",
        "--max-transfers",
        "--transfer-expiry",
        "--stall-timeout",
        "--drain-timeout",
        "--quiet",
        "--verbose",
        "--log-format",
        "--help",
        "--version",
        "DT_ROOT",
        "SIGHUP",
        "143, 130 or 129",
    ];
    check_text("dtclient --help", &PROGRAMS.client().args(["--help"]).run(), &client);
    check_text("dtserver --help", &PROGRAMS.server().args(["--help"]).run(), &server);
    check_text("dtclient -h", &PROGRAMS.client().args(["-h"]).run(), &client[..4]);
    check_text("dtserver -h", &PROGRAMS.server().args(["-h"]).run(), &server[..2]);
    let version = env!("CARGO_PKG_VERSION");
    for (name, run) in [("dtclient", PROGRAMS.client()), ("dtserver", PROGRAMS.server())] {
        let outcome = run.args(["--version"]).run();
        let text = format!("{name} {version}");
        check_text(name, &outcome, &[&text]);
        assert_eq!(String::from_utf8_lossy(&outcome.stdout).lines().count(), 1, "{outcome}");
    }
}

/// Each of these command lines is wrong: code 2, and one line that says why, before anything else is done.
fn check_usage<'a>(name: &str, runs: impl Iterator<Item = (&'a [&'a str], Run)>) {
    let mut failures = Vec::new();
    for (args, run) in runs {
        let outcome = run.run();
        let one_line =
            outcome.stderr.lines().count() == 1 && outcome.stderr.starts_with(&format!("{name}: "));
        if outcome.code != Some(2) || !one_line || !outcome.stdout.is_empty() {
            failures.push(format!("{args:?}: {outcome}"));
        }
    }
    assert!(failures.is_empty(), "{} failures: {failures:#?}", failures.len());
}

#[test]
fn invalid_client_arguments_are_usage_errors() {
    let workspace = Workspace::new();
    let out = workspace.output("out");
    let out = out.to_str().expect("it is UTF-8");
    let bad: [&[&str]; 29] = [
        &[],
        &[NOWHERE, "8"],
        &[NOWHERE, "8", ".."],
        &[NOWHERE, "8", "a/..", "/tmp"],
        &["-p", "--no-preserve", NOWHERE, "8", "f", out],
        &[NOWHERE, "8", "f", out, "more"],
        &[NOWHERE, "0", "f", out],
        &[NOWHERE, "256", "f", out],
        &[NOWHERE, "99999999999999999999", "f", out],
        &[NOWHERE, "1.5", "f", out],
        &[NOWHERE, "eight", "f", out],
        &[NOWHERE, "", "f", out],
        &["127.0.0.1:", "8", "f", out],
        &["127.0.0.1:0", "8", "f", out],
        &["127.0.0.1:65536", "8", "f", out],
        &["127.0.0.1:http", "8", "f", out],
        &[":9000", "8", "f", out],
        &["", "8", "f", out],
        &["[::1:9000", "8", "f", out],
        &["--checksum", "md5=xyz", NOWHERE, "8", "f", out],
        &["--checksum", "md5=", NOWHERE, "8", "f", out],
        &["--checksum", "bf02e98e522704c376e82dfef2cfb24", NOWHERE, "8", "f", out],
        &["--checksum", "crc=bf02e98e522704c376e82dfef2cfb240", NOWHERE, "8", "f", out],
        &["--engine", "steam", NOWHERE, "8", "f", out],
        &["--stall-timeout", "soon", NOWHERE, "8", "f", out],
        &["--connect-timeout", "-1", NOWHERE, "8", "f", out],
        &["--no-such-option", NOWHERE, "8", "f", out],
        &["-q=maybe", NOWHERE, "8", "f", out],
        &[NOWHERE, "8", "f", ""],
    ];
    check_usage("dtclient", bad.iter().map(|args| (*args, PROGRAMS.client().args(*args))));
    workspace.assert_outputs(&[]);
}

/// A negative number looks like an option, but means a number out of range.
#[test]
fn invalid_value_is_answered_with_the_allowed_ones() {
    let check = |run: Run, message: &str| {
        let outcome = run.run();
        assert_eq!(outcome.code, Some(2), "{message}: {outcome}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{outcome}");
        assert!(outcome.stderr.contains(message), "{message:?} is missing in {outcome}");
    };
    let client = |options: &[&str], streams| {
        PROGRAMS.client().options(options).args([NOWHERE, streams, "f", "/dev/null"])
    };
    let streams = "for '<STREAMS>': the number of streams must be a whole number from 1 to 255;";
    for wrong in ["-1", "0", "256", "x"] {
        check(client(&[], wrong), &format!("invalid value '{wrong}' {streams}"));
    }
    let rate =
        "invalid value '-1' for '--limit-rate <RATE>': must be a rate in bytes a second, such as 500K,";
    check(client(&["--limit-rate", "-1"], "8"), rate);
    let retries = "'--retries <N>': must be a whole number from 0 to 4294967295;";
    check(client(&["--retries", "-1"], "8"), &format!("invalid value '-1' for {retries}"));
    check(client(&["--retries", "x"], "8"), &format!("invalid value 'x' for {retries}"));
    let duration = "invalid value '-1' for '--stall-timeout <DUR>': must be a duration such as";
    check(client(&["--stall-timeout", "-1"], "8"), duration);
    for wrong in ["-1", "65536", "x"] {
        let message = "for '<PORT>': must be a whole number from 0 to 65535;";
        check(PROGRAMS.server().args([wrong]), &format!("invalid value '{wrong}' {message}"));
    }
    for (option, shown) in
        [("--max-streams", "--max-streams <N>"), ("--max-transfers", "--max-transfers <N>")]
    {
        for wrong in ["0", "-1", "x"] {
            let message =
                format!("invalid value '{wrong}' for '{shown}': must be a whole number, at least 1;");
            check(PROGRAMS.server().args([option, wrong, "0"]), &message);
        }
    }
    check(
        client(&[], "8").env("DT_RETRIES", "x"),
        "invalid value 'x' for '--retries <N>' or 'DT_RETRIES': must be a whole number",
    );
    check(
        PROGRAMS.server().args(["0"]).env("DT_LOG_FORMAT", "xml"),
        "invalid value 'xml' for '--log-format <FORMAT>' or 'DT_LOG_FORMAT'",
    );
    for (name, option) in [("DT_QUIET", "--quiet"), ("DT_NO_CLOBBER", "--no-clobber"), ("DT_JSON", "--json")]
    {
        for wrong in ["maybe", "2", "tru"] {
            let message = format!("for '{option}' or '{name}': must be true, false, 1, 0, yes or no;");
            check(client(&[], "8").env(name, wrong), &message);
        }
    }
}

#[test]
fn invalid_server_arguments_are_usage_errors() {
    let bad: [&[&str]; 16] = [
        &[],
        &["65536"],
        &["-1"],
        &["http"],
        &[""],
        &["0", "0"],
        &["--bind", "nowhere at all", "0"],
        &["--transfer-ports", "5000-4000", "0"],
        &["--transfer-ports", "x", "0"],
        &["--transfer-ports", "1-65536", "0"],
        &["--max-streams", "0", "0"],
        &["--max-streams", "many", "0"],
        &["--stall-timeout", "soon", "0"],
        &["--transfer-expiry", "-1", "0"],
        &["--log-format", "xml", "0"],
        &["--no-such-option", "0"],
    ];
    check_usage("dtserver", bad.iter().map(|args| (*args, PROGRAMS.server().args(*args).limit(PATIENCE))));
}

#[test]
fn unusable_root_or_port_is_reported() {
    let workspace = Workspace::new();
    fs::write(workspace.root().join("f"), "").expect("it is written");
    for root in ["missing", "f"] {
        let outcome = PROGRAMS.serve(&workspace.root().join(root)).args(["0"]).run();
        assert_eq!(outcome.code, Some(8), "{root}: {outcome}");
        outcome.assert_one_line("dtserver: ");
    }
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = taken.local_addr().expect("the address is known").port().to_string();
    let outcome = PROGRAMS.serve(&workspace.root()).args([&port]).run();
    assert_eq!(outcome.code, Some(1), "{outcome}");
    outcome.assert_one_line("dtserver: ");
    assert!(outcome.stderr.contains(&port), "which port? {outcome}");
}

#[test]
fn addresses_may_be_names_or_ipv6() {
    let workspace = Workspace::new();
    let content = workspace.serve_pattern("f", 1, MIB);
    let fetch = |addr: String| {
        PROGRAMS
            .client()
            .args([addr.as_str(), "4", "f"])
            .args([workspace.output("out")])
            .run()
            .assert_success();
        assert!(fs::read(workspace.output("out")).expect("it is there") == content, "{addr}");
        fs::remove_file(workspace.output("out")).expect("it is ours");
    };
    let server = PROGRAMS.serve(&workspace.root()).ready();
    fetch(format!("localhost:{}", server.addr.port()));
    if let Err(error) = TcpListener::bind("[::1]:0") {
        eprintln!("SKIPPED: IPv6 is not available here: {error}");
        return;
    }
    let server = PROGRAMS.server().options(["--root".as_ref(), workspace.root().as_os_str()]);
    let server = server.options(["--bind", "::1"]).ready();
    fetch(format!("[::1]:{}", server.addr.port()));
}

#[test]
fn options_are_read_from_the_environment() {
    let workspace = Workspace::new();
    let content = workspace.serve_pattern("f", 1, MIB);
    let server = PROGRAMS.server().env("DT_ROOT", workspace.root()).env("DT_BIND", "127.0.0.1");
    let server = server.env("DT_MAX_TRANSFERS", "1").env("DT_LOG_FORMAT", "json").ready();
    let only = Ask::new(server.addr, "f", 4).offer();
    Ask::new(server.addr, "f", 4).answer().assert_refusal(&[503], "more than the environment allows");
    assert!(only.download() == content);
    let fetch = || PROGRAMS.fetch(server.addr, 4, "f", workspace.output("out"));
    let wrong = format!("md5={}", md5(b"another"));
    fetch().env("DT_CHECKSUM", &wrong).run().assert_failure(6);
    // The command line comes first.
    let right = format!("md5={}", md5(&content));
    fetch().env("DT_CHECKSUM", &wrong).options(["--checksum", &right]).run().assert_success();
    fetch().env("DT_NO_CLOBBER", "true").run().assert_failure(13);
    fetch().env("DT_NO_CLOBBER", "false").run().assert_success();
    fetch().env("DT_ENGINE", "write").env("DT_SYNC", "true").run().assert_success();
    for (no_clobber, code) in [("YES", 13), ("1", 13), ("no", 0), ("0", 0)] {
        let outcome = fetch().env("DT_NO_CLOBBER", no_clobber).run();
        assert_eq!(outcome.code, Some(code), "{no_clobber}: {outcome}");
    }
    // A variable that is off does not conflict.
    fetch().env("DT_QUIET", "no").options(["-v"]).run().assert_success();
    let quiet = fetch().env("DT_QUIET", "true").run();
    quiet.assert_success();
    assert_eq!(quiet.stderr, "");
    for (name, value) in [("DT_ENGINE", "steam"), ("DT_STALL_TIMEOUT", "soon"), ("DT_CHECKSUM", "x")] {
        let outcome = fetch().env(name, value).run();
        assert_eq!(outcome.code, Some(2), "{name}: {outcome}");
    }
    workspace.assert_outputs(&["out"]);
}

/// As a line `VARIABLE=` in a file of settings leaves it.
#[test]
fn empty_variables_count_as_unset() {
    let workspace = Workspace::new();
    let content = workspace.serve_pattern("f", 1, MIB);
    let of_server = [
        "DT_BIND",
        "DT_TRANSFER_PORTS",
        "DT_MAX_STREAMS",
        "DT_MAX_TRANSFERS",
        "DT_TRANSFER_EXPIRY",
        "DT_SESSION_EXPIRY",
        "DT_STALL_TIMEOUT",
        "DT_DRAIN_TIMEOUT",
        "DT_QUIET",
        "DT_VERBOSE",
        "DT_LOG_FORMAT",
        "DT_ROOT",
    ];
    let server = of_server.iter().fold(PROGRAMS.serve(&workspace.root()), |run, name| run.env(name, ""));
    let server = server.ready();
    let of_client = [
        "DT_QUIET",
        "DT_VERBOSE",
        "DT_NO_CLOBBER",
        "DT_NO_RESUME",
        "DT_JSON",
        "DT_PROTOCOL",
        "DT_MD5",
        "DT_CHECKSUM",
        "DT_SYNC",
        "DT_ENGINE",
        "DT_LIMIT_RATE",
        "DT_RETRIES",
        "DT_CONNECT_TIMEOUT",
        "DT_STALL_TIMEOUT",
    ];
    let run = PROGRAMS.fetch(server.addr, 4, "f", workspace.output("out"));
    let outcome = of_client.iter().fold(run, |run, name| run.env(name, "")).run();
    outcome.assert_success();
    assert!(fs::read(workspace.output("out")).expect("it is there") == content, "{outcome}");
    assert!(!outcome.stderr.is_empty() && outcome.stdout.is_empty(), "neither quiet nor JSON: {outcome}");
}
