//! The exit code of each way to end, with the words that must accompany it.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use dt_testkit::content::md5;
use dt_testkit::original_server::{Answering, Fault, Script, Streams};
use dt_testkit::programs::Run;
use dt_testkit::sockets::{FullListener, LateListener};
use dt_testkit::workspace::Workspace;

use crate::{BEFORE, MIB, PROGRAMS, original};

/// One case of an exit code: how to get it, and words that the message must hold.
fn check_code(what: &str, run: Run, code: i32, words: &[&str]) {
    let outcome = run.run();
    assert_eq!(outcome.code, Some(code), "{what}: {outcome}");
    outcome.assert_failure(code);
    for word in words {
        assert!(outcome.error().contains(word), "{what}: {word:?} is missing in {outcome}");
    }
    assert_eq!(outcome.stdout, b"", "{what}");
}

#[test]
fn each_exit_code_has_a_case() {
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, MIB);
    let server = PROGRAMS.serve(&workspace.root()).ready();
    let out = workspace.output("out");
    let from = |addr: SocketAddr| PROGRAMS.fetch(addr, 4, "f", &out);
    let answering = |answer| original(&workspace, Script::answering(answer));
    let nobody = LateListener::bind();
    let full = FullListener::bind();
    let wrong_md5 = answering(Answering::WrongHash);
    let unauthorised = answering(Answering::Status(401, "Unauthorized"));
    let changed = answering(Answering::Status(409, "Conflict"));
    let forbidden = answering(Answering::Status(403, "Forbidden"));
    let mute = answering(Answering::Nothing);
    let garbage = answering(Answering::Bytes(b"hello\n".to_vec()));
    let short = original(&workspace, Script::with_fault(Streams::Only(1), Fault::EndsAfter(5)));

    PROGRAMS.fetch(server.addr, 4, "f", "/dev/null").run().assert_success();
    check_code("no such file", PROGRAMS.fetch(server.addr, 4, "missing", &out), 3, &["missing"]);
    check_code("forbidden", from(forbidden.addr), 3, &["f"]);
    check_code("refused", from(nobody.addr()), 4, &["127.0.0.1", &nobody.addr().port().to_string()]);
    let unknown = PROGRAMS.client().args(["no-such-host.invalid:9000", "4", "f"]).args([&out]);
    check_code("unresolvable", unknown, 4, &["no-such-host.invalid"]);
    check_code("a short stream", from(short.addr), 4, &[]);
    check_code("wrong bytes", from(wrong_md5.addr), 6, &["md5", "0123456789abcdef0123456789abcdef"]);
    check_code(
        "a missing folder",
        PROGRAMS.fetch(server.addr, 4, "f", "/no/such/folder/out"),
        8,
        &["/no/such/folder"],
    );
    check_code("unauthorised", from(unauthorised.addr), 9, &[]);
    check_code(
        "connect timeout",
        from(full.addr()).options(["--connect-timeout", "500ms"]),
        10,
        &["127.0.0.1"],
    );
    check_code("stall timeout", from(mute.addr).options(["--stall-timeout", "0.5s"]), 10, &[]);
    check_code("changed", from(changed.addr), 11, &["chang"]);
    check_code("garbage", from(garbage.addr), 12, &[]);
    workspace.assert_outputs(&[]);
    fs::write(&out, BEFORE).expect("it is written");
    check_code("the output exists", from(server.addr).options(["--no-clobber"]), 13, &["exist", "out"]);
    assert_eq!(fs::read(&out).expect("it is there"), BEFORE);
    workspace.assert_outputs(&["out"]);
}

#[test]
fn timeouts_are_kept() {
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, 10);
    let mute = original(&workspace, Script::answering(Answering::Nothing));
    let full = FullListener::bind();
    for (run, least) in [
        (PROGRAMS.fetch(mute.addr, 1, "f", "-").options(["--stall-timeout", "1"]), 1000),
        (PROGRAMS.fetch(full.addr(), 1, "f", "-").options(["--connect-timeout", "1s"]), 1000),
        (PROGRAMS.fetch(full.addr(), 1, "f", "-").env("DT_CONNECT_TIMEOUT", "300ms"), 300),
    ] {
        let outcome = run.run();
        outcome.assert_failure(10);
        let [least, most] = [least, least + 5000].map(Duration::from_millis);
        assert!(outcome.took >= least && outcome.took < most, "{outcome}");
    }
}

#[test]
fn checksum_decides_the_exit_code() {
    let workspace = Workspace::new();
    let content = workspace.serve_pattern("f", 1, MIB);
    let server = PROGRAMS.serve(&workspace.root()).ready();
    let lying = original(&workspace, Script::answering(Answering::WrongHash));
    let [right, wrong] = [md5(&content), md5(b"another")].map(|md5| format!("md5={md5}"));
    let upper = format!("md5={}", md5(&content).to_uppercase());
    let lie = "md5=0123456789abcdef0123456789abcdef".to_owned();
    for (addr, checksum, code) in [
        (server.addr, &right, 0),
        (server.addr, &upper, 0),
        (server.addr, &wrong, 6),
        (lying.addr, &right, 6),
        (lying.addr, &wrong, 6),
        (lying.addr, &lie, 6),
    ] {
        fs::write(workspace.output("out"), BEFORE).expect("it is written");
        // In protocol 2 what the server agrees with is kept: the digest demanded may be what is wrong.
        let run = PROGRAMS.fetch(addr, 4, "f", workspace.output("out")).options(["--checksum", checksum]);
        let run = run.options(["--protocol", "1"]);
        let outcome = run.run();
        assert_eq!(outcome.code, Some(code), "{checksum}: {outcome}");
        let expected = if code == 0 { content.as_slice() } else { BEFORE };
        assert!(fs::read(workspace.output("out")).expect("it is there") == expected, "{checksum}");
        workspace.assert_outputs(&["out"]);
    }
}
