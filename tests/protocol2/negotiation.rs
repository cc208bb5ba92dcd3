//! Which protocol is spoken with whom, and what is said when there is none.

use std::fs;

use dt_testkit::content::md5;
use dt_testkit::events::{Events, number};
use dt_testkit::original_server::{OriginalServer, Script};
use dt_testkit::session::{Session, post};

use crate::{MIB, PROGRAMS, served};

#[test]
fn every_pairing() {
    let (workspace, server, content) = served(MIB + 1);
    for (wish, dtserver, original) in [("auto", Ok(2), Ok(1)), ("1", Ok(1), Ok(1)), ("2", Ok(2), Err(12))] {
        let other = OriginalServer::start(&workspace.root().join("f"), Script::swift());
        for (name, addr, expected) in
            [("dtserver", server.addr, dtserver), ("the original", other.addr, original)]
        {
            let what = format!("--protocol {wish} with {name}");
            let run = PROGRAMS.fetch(addr, 8, "f", workspace.output("out")).options(["--protocol", wish]);
            let outcome = run.options(["--json"]).run();
            let events = Events::of(&outcome);
            match expected {
                Ok(protocol) => {
                    assert_eq!(outcome.code, Some(0), "{what}: {outcome}");
                    assert_eq!(number(events.finished(), "protocol"), protocol, "{what}");
                    assert_eq!(number(events.only("started", &["size"]), "protocol"), protocol, "{what}");
                    assert!(fs::read(workspace.output("out")).expect("it is there") == content, "{what}");
                    fs::remove_file(workspace.output("out")).expect("it is ours");
                }
                Err(code) => {
                    outcome.assert_failure(code);
                    assert_eq!(number(events.only("failed", &["error"]), "exit"), 12, "{what}");
                }
            }
            workspace.assert_outputs(&[]);
        }
    }
}

/// What a client that would rather have protocol 2 asks for is something that the original understands.
#[test]
fn the_original_is_asked_once_when_it_may_answer() {
    let (workspace, _server, content) = served(MIB);
    let original = OriginalServer::start(&workspace.root().join("f"), Script::original());
    PROGRAMS.fetch(original.addr, 8, "f", workspace.output("out")).run().assert_success();
    assert!(fs::read(workspace.output("out")).expect("it is there") == content);
    assert_eq!(original.requests().len(), 1, "one request, and no trial before it");
}

#[test]
fn with_md5_the_original_is_as_good() {
    let (workspace, _server, content) = served(MIB);
    let original = OriginalServer::start(&workspace.root().join("f"), Script::swift());
    let checksum = format!("md5={}", md5(&content));
    for options in [["--md5", "--json"].as_slice(), &["--checksum", &checksum, "--json"]] {
        let run = PROGRAMS.fetch(original.addr, 8, "f", workspace.output("out")).options(options);
        let outcome = run.run();
        outcome.assert_success();
        assert_eq!(Events::of(&outcome).finished()["md5"], md5(&content), "{outcome}");
    }
}

/// What the server makes of the wishes in a body.
#[test]
fn wishes_in_the_request() {
    let (_workspace, server, _) = served(MIB);
    for (body, protocol) in [
        (r#"{"threads": 3}"#, None),
        (r#"{"threads": 3, "protocol": 1}"#, None),
        (r#"{"threads": 3, "protocol": 2}"#, Some(2)),
        (r#"{"threads": 3, "protocol": 2, "md5": true, "of the future": [1, {}]}"#, Some(2)),
        (r#"{"protocol": 99, "threads": 3}"#, Some(2)),
    ] {
        let answer = post(server.addr, "f", body);
        assert_eq!(answer.status, 200, "{body}: {answer:?}");
        let json: serde_json::Value = serde_json::from_str(&answer.body).expect("it is JSON");
        assert_eq!(json.get("protocol").and_then(serde_json::Value::as_u64), protocol, "{body}: {json}");
    }
    for body in [
        r#"{"protocol": 2}"#,
        r#"{"threads": 0, "protocol": 2}"#,
        r#"{"threads": 256, "protocol": 2}"#,
        r#"{"threads": 3, "protocol": 0}"#,
        r#"{"threads": 3, "protocol": "2"}"#,
        r#"{"threads": 3, "protocol": -2}"#,
        r#"{"threads": 3, "protocol": 2, "md5": "yes"}"#,
    ] {
        post(server.addr, "f", body).assert_refusal(&[400], body);
    }
    post(server.addr, "missing", r#"{"threads": 3, "protocol": 2}"#).assert_refusal(&[404], "missing");
    post(server.addr, "../f", r#"{"threads": 3, "protocol": 2}"#).assert_refusal(&[404], "outside");
}

/// Equal versions for equal content, other ones for other content, and never a secret twice.
#[test]
fn versions_and_secrets() {
    let (workspace, server, _) = served(MIB);
    let ask = || Session::ask(server.addr, "f", 2);
    let [first, second] = [ask(), ask()];
    assert_eq!(first.json["version"], second.json["version"]);
    assert_eq!((first.size, first.data), (1 << 20, second.data), "one data port for all sessions");
    assert_ne!(first.secret, second.secret);
    assert_ne!(first.session, second.session);
    workspace.serve_pattern("f", 2, MIB);
    assert_ne!(first.json["version"], ask().json["version"], "overwritten");
    let before = ask();
    workspace.serve_pattern("g", 3, MIB);
    fs::rename(workspace.root().join("g"), workspace.root().join("f")).expect("it is replaced");
    assert_ne!(before.json["version"], ask().json["version"], "replaced");
}
