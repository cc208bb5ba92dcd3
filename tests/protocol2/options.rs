//! The options of protocol 2, on the command line and in the environment.

use std::fs;
use std::time::Duration;

use dt_testkit::content::md5;
use dt_testkit::events::{Events, number};
use dt_testkit::fetched::{assert_fetched, blake3_of};
use dt_testkit::original_server::{OriginalServer, Script};
use dt_testkit::sockets::LateListener;
use dt_testkit::workspace::Workspace;

use crate::{MIB, PROGRAMS, fetch, served};

const NOWHERE: &str = "127.0.0.1:1";

#[test]
fn invalid_options_are_usage_errors() {
    let workspace = Workspace::new();
    let out = workspace.output("out");
    let out = out.to_str().expect("it is UTF-8");
    let mut failures = Vec::new();
    for options in [
        ["--protocol", "3"].as_slice(),
        &["--protocol", "0"],
        &["--protocol", "two"],
        &["--protocol", ""],
        &["--checksum", "blake3=xyz"],
        &["--checksum", "blake3=bf02e98e522704c376e82dfef2cfb240"],
        &["--checksum", "md5=af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"],
        &["--limit-rate", "fast"],
        &["--limit-rate", "-1"],
        &["--limit-rate", ""],
        &["--limit-rate", "M"],
        &["--limit-rate", "1X"],
        &["--retries", "-1"],
        &["--retries", "many"],
    ] {
        let outcome = PROGRAMS.client().options(options).args([NOWHERE, "8", "f", out]).run();
        if outcome.code != Some(2) || outcome.stderr.lines().count() != 1 {
            failures.push(format!("{options:?}: {outcome}"));
        }
    }
    let to_stdout = PROGRAMS.client().options(["--json"]).args([NOWHERE, "8", "f", "-"]).run();
    if to_stdout.code != Some(2) || !to_stdout.stdout.is_empty() {
        failures.push(format!("--json with standard output: {to_stdout}"));
    }
    assert!(failures.is_empty(), "{} failures: {failures:#?}", failures.len());
    workspace.assert_outputs(&[]);
}

#[test]
fn checksum_of_either_kind_decides() {
    let (workspace, server, content) = served(MIB + 5);
    let original = OriginalServer::start(&workspace.root().join("f"), Script::swift());
    let [right, wrong] = [content.as_slice(), b"another"].map(|bytes| (md5(bytes), blake3_of(bytes)));
    let upper = right.1.to_uppercase();
    for (checksum, expected) in [
        (format!("md5={}", right.0), 0),
        (format!("blake3={}", right.1), 0),
        (format!("blake3={upper}"), 0),
        (format!("md5={}", wrong.0), 6),
        (format!("blake3={}", wrong.1), 6),
    ] {
        let checksum = ["--checksum", &checksum];
        for (name, addr) in [("dtserver", server.addr), ("the original", original.addr)] {
            // What a wrong checksum leaves is not resumed: protocol 1 cannot.
            let run = PROGRAMS.fetch(addr, 4, "f", workspace.output("out")).options(checksum);
            let outcome = run.options(["--no-resume"]).run();
            assert_eq!(outcome.code, Some(expected), "{checksum:?} from {name}: {outcome}");
            if expected == 0 {
                assert!(fs::read(workspace.output("out")).expect("it is there") == content);
                fs::remove_file(workspace.output("out")).expect("it is ours");
            } else {
                outcome.assert_failure(expected);
                assert!(!workspace.output("out").exists(), "{checksum:?} from {name}");
            }
        }
        let piped = PROGRAMS.fetch(server.addr, 4, "f", "-").options(checksum).run();
        assert_eq!(piped.code, Some(expected), "{checksum:?} to standard output: {}", piped.stderr);
    }
}

/// The time that so many bytes take at that rate, within what a busy machine makes of it.
#[test]
fn rate_limit_is_kept() {
    let (workspace, server, content) = served(3 * MIB);
    for (rate, least) in [
        ("2M", 1.2),
        ("2097152", 1.2),
        ("2MiB", 1.2),
        ("2m", 1.2),
        ("1.5MiB", 1.6),
        ("2048K", 1.2),
        ("1G", 0.0),
    ] {
        let outcome = fetch(server.addr, 8, &workspace).options(["--limit-rate", rate]).run();
        let finished = assert_fetched(&outcome, &workspace.output("out"), &content, rate);
        let seconds = finished["seconds"].as_f64().expect("a number");
        let took = outcome.took.as_secs_f64();
        assert!(took >= least && took < least + 4.0, "{rate}: {outcome}");
        assert!(seconds <= took && seconds >= least * 0.9, "{rate}: {seconds} of {took}");
    }
}

/// The limit is on all streams together, also when one is left.
#[test]
fn rate_limit_holds_for_one_stream() {
    let (workspace, server, content) = served(3 * MIB);
    let outcome = fetch(server.addr, 1, &workspace).options(["--limit-rate", "2M"]).run();
    assert_fetched(&outcome, &workspace.output("out"), &content, "one stream");
    assert!(outcome.took > Duration::from_millis(1200) && outcome.took < Duration::from_secs(6), "{outcome}");
}

#[test]
fn options_are_read_from_the_environment() {
    let (workspace, server, content) = served(MIB);
    let run = PROGRAMS.fetch(server.addr, 4, "f", workspace.output("out")).env("DT_JSON", "1");
    let outcome = run.env("DT_PROTOCOL", "2").env("DT_MD5", "1").env("DT_LIMIT_RATE", "1M").run();
    let finished = assert_fetched(&outcome, &workspace.output("out"), &content, "from the environment");
    assert_eq!(finished["md5"], md5(&content));
    assert!(outcome.took > Duration::from_millis(500), "{outcome}");
    let nobody = LateListener::bind();
    for (name, value, code) in [
        ("DT_PROTOCOL", "7", 2),
        ("DT_LIMIT_RATE", "fast", 2),
        ("DT_RETRIES", "x", 2),
        ("DT_RETRIES", "0", 4),
        ("DT_NO_RESUME", "1", 4),
    ] {
        let run = PROGRAMS.fetch(nobody.addr(), 4, "f", workspace.output("out")).env(name, value);
        assert_eq!(
            run.env("DT_RETRIES", if name == "DT_RETRIES" { value } else { "0" }).run().code,
            Some(code),
            "{name}"
        );
    }
    let original = OriginalServer::start(&workspace.root().join("f"), Script::swift());
    let run = PROGRAMS.fetch(original.addr, 4, "f", workspace.output("out")).env("DT_PROTOCOL", "2");
    run.run().assert_failure(12);
}

/// The summary for people: bytes, time, rate and digest.
#[test]
fn summary_has_bytes_rate_and_digest() {
    let (workspace, server, content) = served(3 * MIB);
    let run = || PROGRAMS.fetch(server.addr, 4, "f", workspace.output("out")).options(["--protocol", "2"]);
    let outcome = run().run();
    outcome.assert_success();
    assert_eq!(outcome.stdout, b"");
    let last = outcome.stderr.lines().last().unwrap_or_default();
    for word in [blake3_of(&content).as_str(), "/s", "3145728 bytes"] {
        assert!(last.contains(word), "{word:?} is missing in {last:?}");
    }
    assert!(!outcome.stderr.contains(['\r', '\u{1b}']), "no bar without a terminal: {outcome}");
    let quiet = run().options(["-q"]).run();
    quiet.assert_success();
    assert_eq!((quiet.stderr.as_str(), quiet.stdout.as_slice()), ("", b"".as_slice()));
    let events = Events::of(&run().options(["--json", "-q"]).run());
    assert_eq!(number(events.finished(), "bytes"), 3 << 20);
}
