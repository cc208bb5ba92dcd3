//! Answers that lie about the size, refuse, make no sense, or lead nowhere.

use std::fs;
use std::time::Duration;

use dt_testkit::content::pattern;
use dt_testkit::original_server::{Answering, Fault, OriginalServer, Script, Streams};
use dt_testkit::workspace::Workspace;

use crate::{BEFORE, ENGINES, MIB, PROGRAMS, check_bad_server};

/// The size in the answer is the peer's word only: it must not make up for bytes, nor bytes for it.
#[test]
fn wrong_size_fails_the_transfer() {
    let real = 3 * MIB;
    let mut wrong = Vec::new();
    for (what, size, codes) in [
        ("one byte more", (real + 1).to_string(), [4].as_slice()),
        ("one byte less", (real - 1).to_string(), &[4, 6, 12]),
        ("nothing", "0".to_owned(), &[6, 12]),
        ("far less", "5".to_owned(), &[6, 12]),
        ("far more", (1 << 28).to_string(), &[4]),
        ("more than any disk has", (1_u64 << 60).to_string(), &[7]),
        ("the largest number", u64::MAX.to_string(), &[7, 12]),
        ("more than a number", format!("{}0", u64::MAX), &[12]),
        ("negative", "-1".to_owned(), &[12]),
        ("no number", "large".to_owned(), &[12]),
    ] {
        let (script, what) = (Script::reporting_size(&size), format!("reported size: {what}"));
        let workspace = Workspace::new();
        workspace.serve_pattern("f", 1, real);
        for engine in ENGINES {
            fs::write(workspace.output("out"), BEFORE).expect("it is written");
            let server = OriginalServer::start(&workspace.root().join("f"), script.clone());
            let run = PROGRAMS.fetch(server.addr, 4, "f", workspace.output("out"));
            let outcome = run.options(["--engine", engine]).run();
            if !outcome.code.is_some_and(|code| codes.contains(&code)) {
                wrong.push(format!("{codes:?}, {what}, {engine}: {outcome}"));
                continue;
            }
            outcome.assert_one_line("dtclient: ");
            workspace.assert_outputs(&["out"]);
            assert_eq!(fs::read(workspace.output("out")).expect("it is there"), BEFORE, "{what}, {engine}");
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // The right one is what the others are judged by.
    let workspace = Workspace::new();
    let content = workspace.serve_pattern("f", 1, real);
    let server =
        OriginalServer::start(&workspace.root().join("f"), Script::reporting_size(&real.to_string()));
    PROGRAMS.fetch(server.addr, 4, "f", workspace.output("out")).run().assert_success();
    assert!(fs::read(workspace.output("out")).expect("it is there") == content);
}

#[test]
fn faults_are_found_with_a_size() {
    let size = 3 * MIB;
    for (what, streams, fault, codes) in [
        ("short", Streams::Only(1), Fault::EndsAfter(100_000), [4].as_slice()),
        ("two bytes short at the end", Streams::Only(3), Fault::EndsAfter(786_426), &[4]),
        ("reset", Streams::Only(1), Fault::ResetsAfter(100_000), &[4]),
        ("flipped", Streams::Only(1), Fault::Flipped(100_000), &[6]),
    ] {
        let sized = Script::reporting_size(&size.to_string());
        let script = Script { faults: vec![(streams, fault)], ..sized };
        check_bad_server(&format!("{what}, with a size"), &script, size, &[], codes);
    }
}

/// A client that knows the size may leave the surplus unread, or fail; it never gets into the output.
#[test]
fn surplus_is_dropped_with_a_size() {
    let size = 3 * MIB;
    for (streams, surplus) in [(Streams::Only(1), 1), (Streams::Only(3), 1), (Streams::Every, 5_000_000)] {
        for engine in ENGINES {
            let workspace = Workspace::new();
            let content = workspace.serve_pattern("f", 1, size);
            fs::write(workspace.output("out"), BEFORE).expect("it is written");
            let faults = vec![(streams, Fault::Surplus(surplus))];
            let script = Script { faults, ..Script::reporting_size(&size.to_string()) };
            let server = OriginalServer::start(&workspace.root().join("f"), script);
            let run = PROGRAMS.fetch(server.addr, 4, "f", workspace.output("out"));
            let outcome = run.options(["--engine", engine]).run();
            let output = fs::read(workspace.output("out")).expect("it is there");
            match outcome.code {
                Some(0) => assert!(output == content, "{outcome}"),
                Some(6 | 12) => assert!(output == BEFORE, "{outcome}"),
                Some(_) | None => panic!("{outcome}"),
            }
            workspace.assert_outputs(&["out"]);
        }
    }
}

#[test]
fn invalid_answers_are_rejected() {
    let bytes = |bytes: &[u8]| Answering::Bytes(bytes.to_vec());
    let body = |body: &str| Answering::Body(body.as_bytes().to_vec());
    let hash = "bf02e98e522704c376e82dfef2cfb240";
    for (what, answer) in [
        ("another protocol", bytes(b"220 ftp.example ready\r\n")),
        ("binary", bytes(&pattern(1, 70_000))),
        ("HTML", body("<html>it works!</html>")),
        ("an empty object", body("{}")),
        ("an empty body", body("")),
        ("half a body", body(r#"{"hash": "bf02e98e"#)),
        ("a short hash", body(r#"{"hash": "bf02", "port": 1}"#)),
        ("no port", body(&format!(r#"{{"hash": "{hash}"}}"#))),
        ("port 0", body(&format!(r#"{{"hash": "{hash}", "port": 0}}"#))),
        ("a large port", body(&format!(r#"{{"hash": "{hash}", "port": 65536}}"#))),
        ("an array in an array", body(&"[".repeat(100_000))),
        ("a body that does not end", Answering::EndlessBody),
        ("a header that does not end", Answering::EndlessHeader),
    ] {
        check_bad_server(what, &Script::answering(answer), 100, &[], &[12]);
    }
}

/// The connection ends before there is an answer: nothing was said that could be wrong.
#[test]
fn endless_answer_is_rejected() {
    for (bytes, codes) in [(b"".as_slice(), [4].as_slice()), (b"HTTP/1.0 200 OK\r\nServer:", &[4, 12])] {
        check_bad_server("cut off", &Script::answering(Answering::Bytes(bytes.to_vec())), 100, &[], codes);
    }
}

#[test]
fn refusals_have_their_exit_codes() {
    for (status, reason, code) in [
        (401, "Unauthorized", 9),
        (403, "Forbidden", 3),
        (404, "Not Found", 3),
        (409, "Conflict", 11),
        (500, "Internal Server Error", 1),
        (503, "Service Unavailable", 1),
    ] {
        let script = Script::answering(Answering::Status(status, reason));
        let workspace = Workspace::new();
        workspace.serve_pattern("f", 1, 10);
        let server = OriginalServer::start(&workspace.root().join("f"), script);
        let outcome = PROGRAMS.fetch(server.addr, 4, "f", workspace.output("out")).run();
        match status {
            // The contract names no code for these.
            500 | 503 => {
                assert!(outcome.code.is_some_and(|code| code != 0 && code != 101), "{status}: {outcome}");
            }
            _ => assert_eq!(outcome.code, Some(code), "{status}: {outcome}"),
        }
        outcome.assert_one_line("dtclient: ");
        workspace.assert_outputs(&[]);
    }
}

/// The answer names a port on which nothing ever listens.
#[test]
fn refused_streams_fail_the_transfer() {
    let script = Script { listens_after: Duration::from_secs(50), ..Script::swift() };
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, 10);
    let server = OriginalServer::start(&workspace.root().join("f"), script);
    let outcome = PROGRAMS
        .fetch(server.addr, 4, "f", workspace.output("out"))
        .options(["--connect-timeout", "2s"])
        .run();
    assert!(matches!(outcome.code, Some(4 | 10)), "{outcome}");
    outcome.assert_one_line("dtclient: ");
    assert!(outcome.took >= Duration::from_secs(1), "a late listener gets at least a second: {outcome}");
    workspace.assert_outputs(&[]);
    // The thread that is about to listen must not keep the next test waiting.
    drop(server);
}
