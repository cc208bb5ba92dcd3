//! The command lines: exit codes, messages, signals, and what is left behind.

use std::fs::{self, File};
use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use dt_tests::content::md5;
use dt_tests::original_client::Ask;
use dt_tests::original_server::{Answering, Fault, OriginalServer, Script, Streams};
use dt_tests::pipe::Pipe;
use dt_tests::process::{Outcome, Process};
use dt_tests::programs;
use dt_tests::programs::{Programs, Run};
use dt_tests::sockets::{FullListener, LateListener, connect, is_refused};
use dt_tests::wait::{PATIENCE, until, until_true};
use dt_tests::workspace::{Workspace, files_in};
use rustix::process::Signal;

const PROGRAMS: Programs = programs!();
const MIB: usize = 1 << 20;
const BEFORE: &[u8] = b"what was there before";
const SIGNALS: [Signal; 2] = [Signal::INT, Signal::TERM];
const NOWHERE: &str = "127.0.0.1:1";

fn original(workspace: &Workspace, script: Script) -> OriginalServer {
    OriginalServer::start(&workspace.root().join("f"), script)
}

fn check_text(what: &str, outcome: &Outcome, words: &[&str]) {
    outcome.assert_success();
    let text = String::from_utf8(outcome.stdout.clone()).expect("it is UTF-8");
    assert_eq!(outcome.stderr, "", "{what}: help belongs on standard output");
    for word in words {
        assert!(text.contains(word), "{what}: {word} is missing in {text}");
    }
}

#[test]
fn help_and_version() {
    let client = [
        "<ADDRESS>",
        "<STREAMS>",
        "<FILE>",
        "<OUTPUT>",
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
fn usage_of_the_client() {
    let workspace = Workspace::new();
    let out = workspace.output("out");
    let out = out.to_str().expect("it is UTF-8");
    let bad: [&[&str]; 26] = [
        &[],
        &[NOWHERE, "8", "f"],
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
    // A negative number looks like an option, but is as wrong.
    assert_eq!(PROGRAMS.client().args([NOWHERE, "-1", "f", out]).run().code, Some(2));
}

#[test]
fn usage_of_the_server() {
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
fn places_a_server_cannot_have() {
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
fn one_case_for_each_code() {
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
fn what_success_says() {
    let workspace = Workspace::new();
    let content = workspace.serve_pattern("f", 1, 3 * MIB);
    let server = PROGRAMS.serve(&workspace.root()).ready();
    let fetch = || PROGRAMS.fetch(server.addr, 4, "f", workspace.output("out"));
    let plain = fetch().run();
    plain.assert_success();
    assert_eq!(plain.stdout, b"");
    let last = plain.stderr.lines().last().unwrap_or_default();
    for word in [md5(&content).as_str(), "/s", "3145728 bytes"] {
        assert!(last.contains(word), "{word:?} is missing in {last:?}");
    }
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

#[test]
fn checksums() {
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
        let run = PROGRAMS.fetch(addr, 4, "f", workspace.output("out")).options(["--checksum", checksum]);
        let outcome = run.run();
        assert_eq!(outcome.code, Some(code), "{checksum}: {outcome}");
        let expected = if code == 0 { content.as_slice() } else { BEFORE };
        assert!(fs::read(workspace.output("out")).expect("it is there") == expected, "{checksum}");
        workspace.assert_outputs(&["out"]);
    }
}

#[test]
fn the_output_gets_the_usual_mode() {
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, MIB);
    let server = PROGRAMS.serve(&workspace.root()).ready();
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o7777;
    // Made by this process, under the umask that the client inherits.
    File::create(workspace.output("other")).expect("it is made");
    for engine in ["map", "write"] {
        let run = PROGRAMS.fetch(server.addr, 4, "f", workspace.output(engine)).options(["--engine", engine]);
        run.run().assert_success();
        assert_eq!(mode(&workspace.output(engine)), mode(&workspace.output("other")), "{engine}");
    }
}

#[test]
fn an_output_without_a_folder_goes_into_the_current_one() {
    let workspace = Workspace::new();
    let content = workspace.serve_pattern("f", 1, MIB);
    let server = PROGRAMS.serve(&workspace.root()).ready();
    let mut command = Command::new(PROGRAMS.client);
    command.args([&server.addr.to_string(), "4", "f", "out"]).current_dir(workspace.outputs());
    Process::start(command, "dtclient", None).finish_within(PATIENCE).assert_success();
    assert!(fs::read(workspace.output("out")).expect("it is there") == content);
    // And what the server serves by default is its current folder.
    let mut command = Command::new(PROGRAMS.server);
    command.args(["--bind", "127.0.0.1", "0"]).current_dir(workspace.root());
    let server = Process::start(command, "dtserver", None);
    let line = until("the ready line", || server.stdout().ends_with(b"\n").then(|| server.stdout()));
    let line = String::from_utf8(line).expect("it is UTF-8");
    let addr = line.strip_prefix("listening on ").and_then(|rest| rest.split(", ").next()?.parse().ok());
    assert!(Ask::new(addr.expect("an address"), "f", 4).offer().download() == content);
}

#[test]
fn addresses_by_name_and_of_ipv6() {
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
        eprintln!("SKIPPED: IPv6: there is none here: {error}");
        return;
    }
    let server = PROGRAMS.server().options(["--root".as_ref(), workspace.root().as_os_str()]);
    let server = server.options(["--bind", "::1"]).ready();
    fetch(format!("[::1]:{}", server.addr.port()));
}

/// Interrupts a client that cannot get any further; nothing of it may stay.
fn check_interrupted(what: &str, workspace: &Workspace, run: &dyn Fn() -> Run, ready: &dyn Fn() -> bool) {
    for signal in SIGNALS {
        fs::write(workspace.output("out"), BEFORE).expect("it is written");
        let client = run().start();
        until_true(what, ready);
        client.signal(signal);
        let outcome = client.finish_within(Duration::from_secs(5));
        assert_eq!(outcome.code, Some(130), "{what}, {signal:?}: {outcome}");
        outcome.assert_failure(130);
        workspace.assert_outputs(&["out"]);
        assert_eq!(fs::read(workspace.output("out")).expect("it is there"), BEFORE, "{what}");
    }
}

#[test]
fn an_interrupted_client_leaves_nothing() {
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, 3 * MIB);
    for engine in ["map", "write"] {
        let stalling = Script::with_fault(Streams::Only(2), Fault::StallsAfter(100_000));
        for (what, script, streams) in [
            ("while it receives", stalling, 4),
            ("while it waits for the answer", Script::answering(Answering::Nothing), 0),
        ] {
            // A server for each signal: its requests and streams tell how far the client is.
            let server = std::cell::RefCell::new(original(&workspace, script.clone()));
            let run = || {
                *server.borrow_mut() = original(&workspace, script.clone());
                PROGRAMS
                    .fetch(server.borrow().addr, 4, "f", workspace.output("out"))
                    .options(["--engine", engine])
            };
            let ready = || {
                let server = server.borrow();
                server.requests().len() == 1
                    && server.ids().len() == streams
                    && (streams == 0 || files_in(&workspace.outputs()).len() == 2)
            };
            check_interrupted(what, &workspace, &run, &ready);
        }
    }
}

/// From the moment a client can be seen at work, an interrupt must find its handler.
#[test]
fn a_client_interrupted_at_once() {
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, MIB);
    let mut failures = Vec::new();
    for round in 0..100 {
        let server = original(&workspace, Script::answering(Answering::Nothing));
        let client = PROGRAMS.fetch(server.addr, 4, "f", workspace.output("out")).start();
        let at_work = || !server.requests().is_empty() || !files_in(&workspace.outputs()).is_empty();
        until_true("the part file or the request", at_work);
        client.signal(SIGNALS[round % 2]);
        let outcome = client.finish_within(Duration::from_secs(5));
        let left = files_in(&workspace.outputs());
        if outcome.code != Some(130) || !left.is_empty() {
            failures.push(format!("round {round}: {outcome}, left behind: {left:?}"));
        }
        for name in left {
            fs::remove_file(workspace.output(&name)).expect("it is ours");
        }
    }
    assert!(failures.is_empty(), "{} of 100: {failures:#?}", failures.len());
}

#[test]
fn a_client_interrupted_while_it_writes_to_a_full_pipe() {
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, 30 * MIB);
    let server = PROGRAMS.serve(&workspace.root()).ready();
    for signal in SIGNALS {
        let fifo = workspace.output("pipe");
        let mut pipe = Pipe::make(&fifo);
        let client = PROGRAMS.fetch(server.addr, 4, "f", &fifo).start();
        pipe.first_byte();
        client.signal(signal);
        client.finish_within(Duration::from_secs(5)).assert_failure(130);
        fs::remove_file(&fifo).expect("it is still there");
        workspace.assert_outputs(&[]);
    }
}

#[test]
fn a_reader_that_goes_away() {
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, 30 * MIB);
    let server = PROGRAMS.serve(&workspace.root()).ready();
    let fifo = workspace.output("pipe");
    let mut pipe = Pipe::make(&fifo);
    let client = PROGRAMS.fetch(server.addr, 4, "f", &fifo).start();
    pipe.first_byte();
    drop(pipe);
    client.finish_within(PATIENCE).assert_failure(8);
    workspace.assert_outputs(&["pipe"]);
}

#[test]
fn an_ended_server_leaves_nothing() {
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, 30 * MIB);
    for signal in SIGNALS {
        let idle = PROGRAMS.serve(&workspace.root()).ready();
        let addr = idle.addr;
        let outcome = idle.stop(signal, Duration::from_secs(3));
        outcome.assert_success();
        assert_eq!(
            String::from_utf8_lossy(&outcome.stdout).lines().count(),
            1,
            "only the ready line: {outcome}"
        );
        assert!(is_refused(addr));

        let busy = PROGRAMS.serve(&workspace.root()).options(["--drain-timeout", "500ms"]).ready();
        let mute = connect(busy.addr);
        let offer = Ask::new(busy.addr, "f", 4).offer();
        let unread = offer.open(0);
        let mute_stream = connect(offer.data);
        let outcome = busy.stop(signal, Duration::from_secs(5));
        outcome.assert_success();
        outcome_has_no_panic(&outcome);
        drop((mute, unread, mute_stream));
        assert!(is_refused(offer.data));
    }
}

fn outcome_has_no_panic(outcome: &Outcome) {
    assert!(!outcome.stderr.contains("panicked"), "{outcome}");
}

/// A transfer that is nearly over may end; new ones are not begun.
#[test]
fn a_server_that_drains() {
    let workspace = Workspace::new();
    let content = workspace.serve_pattern("f", 1, 30 * MIB);
    let server = PROGRAMS.serve(&workspace.root()).options(["--drain-timeout", "20s"]).ready();
    let addr = server.addr;
    let offer = Ask::new(server.addr, "f", 1).offer();
    let mut stream = offer.open(0);
    let mut received = vec![0; 1000];
    stream.read_exact(&mut received).expect("it begins");
    server.process().signal(Signal::TERM);
    until_true("no new requests", || is_refused(addr));
    received.extend(dt_tests::sockets::read_to_end(&stream).bytes);
    assert!(received == content, "the running stream goes on: {} bytes", received.len());
    server.stop(Signal::TERM, PATIENCE).assert_success();
}

/// A file that takes minutes to hash must not keep the server from ending, nor other requests from their answers.
#[test]
fn a_server_that_is_hashing() {
    let workspace = Workspace::new();
    let small = workspace.serve_pattern("small", 1, MIB);
    let huge = File::create(workspace.root().join("huge")).expect("it is made");
    huge.set_len(200 << 30).expect("a sparse file");
    let server = PROGRAMS.serve(&workspace.root()).options(["--drain-timeout", "500ms"]).ready();
    let client = PROGRAMS.fetch(server.addr, 4, "huge", workspace.output("out")).start();
    until_true("the server reads", || {
        let io = fs::read_to_string(format!("/proc/{}/io", server.process().id())).expect("it may be read");
        let rchar = io.lines().find_map(|line| line.strip_prefix("rchar: ")?.parse::<u64>().ok());
        rchar.is_some_and(|n| n > 50 << 20)
    });
    assert!(Ask::new(server.addr, "small", 4).offer().download() == small);
    server.stop(Signal::TERM, Duration::from_secs(5)).assert_success();
    // It hears from the server that it ends, or nothing at all.
    let outcome = client.finish_within(PATIENCE);
    assert!(matches!(outcome.code, Some(1 | 4)), "{outcome}");
    outcome.assert_one_line("dtclient: ");
    workspace.assert_outputs(&[]);
}

#[test]
fn one_of_many_that_must_not_overwrite() {
    let workspace = Workspace::new();
    let contents: Vec<_> =
        (0..8).map(|seed| workspace.serve_pattern(&format!("f{seed}"), seed, MIB)).collect();
    let server = PROGRAMS.serve(&workspace.root()).ready();
    for round in 0..5 {
        let name = format!("out{round}");
        let clients: Vec<_> = (0..8)
            .map(|n| {
                let run = PROGRAMS.fetch(server.addr, 2, format!("f{n}"), workspace.output(&name));
                run.options(["--no-clobber"]).start()
            })
            .collect();
        let outcomes: Vec<Outcome> =
            clients.into_iter().map(|client| client.finish_within(PATIENCE)).collect();
        let codes: Vec<_> = outcomes.iter().map(|outcome| outcome.code).collect();
        let winners: Vec<usize> = (0..8).filter(|n| codes[*n] == Some(0)).collect();
        let [winner] = winners[..] else { panic!("one winner expected: {codes:?}") };
        assert!(outcomes.iter().enumerate().all(|(n, o)| n == winner || o.code == Some(13)), "{codes:?}");
        assert!(fs::read(workspace.output(&name)).expect("it is there") == contents[winner]);
    }
    workspace.assert_outputs(&["out0", "out1", "out2", "out3", "out4"]);
}

#[test]
fn an_output_that_appears_on_the_way() {
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, MIB);
    let server = original(&workspace, Script::with_fault(Streams::Only(1), Fault::HoldsAfter(10)));
    let run = PROGRAMS.fetch(server.addr, 4, "f", workspace.output("out")).options(["--no-clobber"]);
    let client = run.start();
    until_true("all streams are open", || server.ids().len() == 4);
    fs::write(workspace.output("out"), BEFORE).expect("it is written");
    server.release();
    client.finish_within(PATIENCE).assert_failure(13);
    workspace.assert_outputs(&["out"]);
    assert_eq!(fs::read(workspace.output("out")).expect("it is there"), BEFORE);
}

#[test]
fn two_clients_on_one_output() {
    let workspace = Workspace::new();
    let content = workspace.serve_pattern("f", 1, MIB);
    let held = original(&workspace, Script::with_fault(Streams::Only(1), Fault::HoldsAfter(10)));
    let swift = original(&workspace, Script::swift());
    let first = PROGRAMS.fetch(held.addr, 4, "f", workspace.output("out")).start();
    until_true("the first is at it", || held.ids().len() == 4);
    until_true("its part file", || files_in(&workspace.outputs()).len() == 1);
    assert_eq!(files_in(&workspace.outputs()), ["out.dtpart"]);
    let second = PROGRAMS.fetch(swift.addr, 4, "f", workspace.output("out")).run();
    second.assert_failure(13);
    assert!(second.error().contains("out"), "{second}");
    workspace.assert_outputs(&["out.dtpart"]);
    held.release();
    first.finish_within(PATIENCE).assert_success();
    assert!(fs::read(workspace.output("out")).expect("it is there") == content);
    workspace.assert_outputs(&["out"]);
}

/// What a killed client left is no obstacle for the next, and none of its bytes get into the output.
#[test]
fn a_part_file_of_a_killed_client() {
    let workspace = Workspace::new();
    let content = workspace.serve_pattern("f", 1, MIB);
    let server = original(&workspace, Script::swift());
    for engine in ["map", "write"] {
        let held = original(&workspace, Script::with_fault(Streams::Only(1), Fault::HoldsAfter(10)));
        let killed = PROGRAMS.fetch(held.addr, 4, "f", workspace.output("out")).start();
        until_true("its part file", || files_in(&workspace.outputs()).contains(&"out.dtpart".to_owned()));
        killed.signal(Signal::KILL);
        assert_eq!(killed.finish_within(PATIENCE).signal, Some(9));
        fs::write(workspace.output("out.dtpart"), vec![7; 3 * MIB]).expect("more than the file has");
        let run = PROGRAMS.fetch(server.addr, 4, "f", workspace.output("out")).options(["--engine", engine]);
        run.run().assert_success();
        assert!(fs::read(workspace.output("out")).expect("it is there") == content, "{engine}");
        workspace.assert_outputs(&["out"]);
    }
}

#[test]
fn options_by_environment() {
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
    let quiet = fetch().env("DT_QUIET", "true").run();
    quiet.assert_success();
    assert_eq!(quiet.stderr, "");
    for (name, value) in [("DT_ENGINE", "steam"), ("DT_STALL_TIMEOUT", "soon"), ("DT_CHECKSUM", "x")] {
        let outcome = fetch().env(name, value).run();
        assert_eq!(outcome.code, Some(2), "{name}: {outcome}");
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
fn what_the_server_logs() {
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

/// Who lets the system choose the port has to learn which one it is, log or no log.
#[test]
fn a_quiet_server_tells_its_address_only() {
    let quiet = logged(&["-q"]);
    assert_eq!(quiet.stderr, "");
}

/// A standard error that takes nothing is no reason to fail, and such a standard output is an error, not a panic.
#[test]
fn standard_streams_that_take_nothing() {
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
