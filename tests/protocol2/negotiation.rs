//! Which protocol each pair of programs speaks, and the errors when there is no common one.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;

use dt_testkit::content::md5;
use dt_testkit::events::{Events, number};
use dt_testkit::frame::Frame;
use dt_testkit::http::{Afterwards, Answer, BETWEEN_SEGMENTS, exchange, read_head};
use dt_testkit::original_server::{OriginalServer, Script};
use dt_testkit::session::{Session, Stream, UPGRADE, assert_upgraded, post, request};
use dt_testkit::sockets::connect;

use crate::{MIB, PROGRAMS, served};

#[test]
fn every_pair_agrees_on_a_protocol() {
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

/// The request of a client that prefers protocol 2 is one that the original server understands.
#[test]
fn original_server_gets_one_request() {
    let (workspace, _server, content) = served(MIB);
    let original = OriginalServer::start(&workspace.root().join("f"), Script::original());
    PROGRAMS.fetch(original.addr, 8, "f", workspace.output("out")).run().assert_success();
    assert!(fs::read(workspace.output("out")).expect("it is there") == content);
    assert_eq!(original.requests().len(), 1, "one request, and no trial before it");
}

#[test]
fn md5_is_reported_with_the_original_server_too() {
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

/// How the server reads the keys of a body.
#[test]
fn request_keys_choose_the_protocol() {
    let (_workspace, server, _) = served(MIB);
    for (body, protocol) in [
        (r#"{"threads": 3}"#, None),
        (r#"{"threads": 3, "protocol": 1}"#, None),
        (r#"{"threads": 3, "protocol": 2}"#, Some(2)),
        (r#"{"threads": 3, "protocol": 2, "md5": true, "of the future": [1, {}]}"#, Some(2)),
        (r#"{"threads": 3, "protocol": 2, "from": 5, "push": 262144}"#, Some(2)),
        (r#"{"protocol": 99, "threads": 3}"#, Some(2)),
    ] {
        let answer = post(server.addr, "f", body);
        assert_eq!((answer.status, answer.header("upgrade")), (200, None), "{body}: {answer:?}");
        let json: serde_json::Value = serde_json::from_str(&answer.body).expect("it is JSON");
        assert_eq!(json.get("protocol").and_then(serde_json::Value::as_u64), protocol, "{body}: {json}");
        assert_eq!(json.get("port").is_some(), protocol.is_none(), "{body}: {json}");
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
        for headers in ["", UPGRADE] {
            let answer = answer_to(server.addr, "f", headers, body);
            answer.assert_refusal(&[400], &format!("{headers:?}, {body}"));
        }
    }
    for (target, what) in [("missing", "missing"), ("../f", "outside")] {
        for headers in ["", UPGRADE] {
            let answer = answer_to(server.addr, target, headers, r#"{"threads": 3, "protocol": 2}"#);
            answer.assert_refusal(&[404], what);
        }
    }
}

/// The answer of HTTP to a request that is not upgraded, whatever its headers.
#[track_caller]
fn answer_to(server: SocketAddr, target: &str, headers: &str, body: &str) -> Answer {
    exchange(server, &[&request(server, target, headers, body)], Afterwards::Wait)
}

/// A request that does not ask for this upgrade, or not for protocol 2, is answered as if it had no such headers.
#[test]
fn only_the_two_headers_and_protocol_2_upgrade() {
    let (_workspace, server, content) = served(MIB);
    let body = r#"{"threads": 1, "protocol": 2, "push": 1048576}"#;
    for headers in [
        "Connection: Upgrade\r\nUpgrade: websocket\r\n",
        "Connection: Upgrade\r\n",
        "Upgrade: dt2\r\n",
        "Connection: close\r\nUpgrade: dt2\r\n",
    ] {
        let answer = answer_to(server.addr, "f", headers, body);
        assert_eq!(answer.status, 200, "{headers:?}: {answer:?}");
        let session = Session::of(server.addr, &answer.body);
        assert!(session.download(&mut [session.open(0)]) == content, "{headers:?}");
    }
    let answer = answer_to(server.addr, "f", UPGRADE, r#"{"threads": 3}"#);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body.contains("\"port\""), "{answer:?}");
    for headers in ["connection: keep-alive, upgrade\r\nupgrade: DT2\r\n", UPGRADE] {
        let mut socket = connect(server.addr);
        socket.write_all(&request(server.addr, "f", headers, body)).expect("it is sent");
        assert_upgraded(&read_head(&mut socket).expect("an answer"));
        assert!(matches!(Frame::read(&mut socket), Some(Frame::Offer(_))), "{headers:?}");
    }
}

/// The body may arrive after the head, and in pieces: the upgrade waits for it.
#[test]
fn upgrade_waits_for_the_body() {
    let (_workspace, server, content) = served(MIB);
    let bytes = request(server.addr, "f", UPGRADE, r#"{"threads": 1, "protocol": 2}"#);
    for cut in [1, 2, 30, bytes.len() - 20, bytes.len() - 1] {
        let mut socket = connect(server.addr);
        socket.write_all(&bytes[..cut]).expect("it is sent");
        std::thread::sleep(BETWEEN_SEGMENTS);
        socket.write_all(&bytes[cut..]).expect("it is sent");
        assert_upgraded(&read_head(&mut socket).expect("an answer"));
        let mut stream = Stream::of(socket);
        let Some(Frame::Offer(json)) = stream.frame() else { panic!("an offer expected") };
        assert!(Session::of(server.addr, &json).download(&mut [stream]) == content, "cut at {cut}");
    }
}

/// The version changes with the content and only then; a secret is never used twice.
#[test]
fn version_follows_the_file_and_secrets_never_repeat() {
    let (workspace, server, _) = served(MIB);
    let ask = || Session::request(server.addr, "f", 2);
    let [first, second] = [ask(), ask()];
    assert_eq!(first.json["version"], second.json["version"]);
    assert_eq!((first.size, second.size), (1 << 20, 1 << 20));
    assert_ne!(first.secret, second.secret);
    assert_ne!(first.session, second.session);
    workspace.serve_pattern("f", 2, MIB);
    assert_ne!(first.json["version"], ask().json["version"], "overwritten");
    let before = ask();
    workspace.serve_pattern("g", 3, MIB);
    fs::rename(workspace.root().join("g"), workspace.root().join("f")).expect("it is replaced");
    assert_ne!(before.json["version"], ask().json["version"], "replaced");
}
