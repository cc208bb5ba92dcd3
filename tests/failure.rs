//! What goes wrong on the way: peers that die, lie, stall or stay mute, disks that fill up, files that change.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use dt_tests::content::{pattern, write_pattern};
use dt_tests::disk::{SMALL_DISK, SmallDisk};
use dt_tests::http::{Afterwards, exchange, send};
use dt_tests::original_client::Ask;
use dt_tests::original_server::{Answering, Fault, OriginalServer, Script, Streams};
use dt_tests::programs;
use dt_tests::programs::Programs;
use dt_tests::sockets::{End, accept_within, connect, read_to_end, reset, try_connect};
use dt_tests::wait::{PATIENCE, until, until_true};
use dt_tests::workspace::{Workspace, files_in};
use rustix::process::Signal;

const PROGRAMS: Programs = programs!();
const MIB: usize = 1 << 20;
const ENGINES: [&str; 2] = ["map", "write"];
const SMALL_DISK_BYTES: u64 = 10 << 20;
const BEFORE: &[u8] = b"what was there before";

/// One transfer from a misbehaving original: it must end with one of `codes`, and leave what was there before as it was.
fn check_bad_server(what: &str, script: &Script, size: usize, options: &[&str], codes: &[i32]) {
    for engine in ENGINES {
        let workspace = Workspace::new();
        workspace.serve_pattern("f", 1, size);
        fs::write(workspace.output("out"), BEFORE).expect("it is written");
        let server = OriginalServer::start(&workspace.root().join("f"), script.clone());
        let outcome = PROGRAMS
            .fetch(server.addr, 4, "f", workspace.output("out"))
            .options(["--engine", engine])
            .options(options)
            .run();
        assert!(
            outcome.code.is_some_and(|code| codes.contains(&code)),
            "{codes:?}, {what}, {engine}: {outcome}"
        );
        outcome.assert_one_line("dtclient: ");
        assert!(!server.requests().is_empty(), "{what}: the client never asked");
        workspace.assert_outputs(&["out"]);
        assert_eq!(fs::read(workspace.output("out")).expect("it is there"), BEFORE, "{what}, {engine}");
        let piped = PROGRAMS.fetch(server.addr, 4, "f", "-").options(options).run();
        let expected = piped.code.is_some_and(|code| codes.contains(&code));
        assert!(expected, "{codes:?}, {what}, to standard output: {:?}, {}", piped.code, piped.stderr);
    }
}

#[test]
fn a_stream_that_ends_early() {
    for (what, only, fault) in [
        ("the first ends early", 0, Fault::EndsAfter(100_000)),
        ("one in the middle ends early", 2, Fault::EndsAfter(3)),
        ("the first is empty", 0, Fault::EndsAfter(0)),
    ] {
        check_bad_server(what, &Script::with_fault(Streams::Only(only), fault), 3 * MIB, &[], &[4]);
    }
}

/// Lengths that a file two bytes shorter would have: only the digest can tell.
#[test]
fn a_last_stream_that_ends_early() {
    let script = Script::with_fault(Streams::Only(3), Fault::EndsAfter((1 << 19) - 2));
    check_bad_server("two bytes are missing at the end", &script, 2 * MIB + 3, &[], &[6]);
}

#[test]
fn a_stream_that_is_reset() {
    for (what, streams, fault) in [
        ("one is reset", Streams::Only(1), Fault::ResetsAfter(300_000)),
        ("one is reset before its first byte", Streams::Only(2), Fault::ResetsAfter(0)),
        ("the server dies", Streams::Every, Fault::ResetsAfter(200_000)),
    ] {
        check_bad_server(what, &Script::with_fault(streams, fault), 3 * MIB, &[], &[4]);
    }
}

#[test]
fn wrong_bytes() {
    for (what, script) in [
        ("one byte of the first stream", Script::with_fault(Streams::Only(0), Fault::Flipped(0))),
        ("one byte of the last stream", Script::with_fault(Streams::Only(3), Fault::Flipped(700_000))),
        ("one byte of every stream", Script::with_fault(Streams::Every, Fault::Flipped(12_345))),
        ("another MD5", Script::answering(Answering::WrongHash)),
        ("one byte more at the end", Script::with_fault(Streams::Only(3), Fault::Surplus(1))),
    ] {
        check_bad_server(what, &script, 3 * MIB, &[], &[6]);
    }
}

/// Lengths that no file splits into. Who was never told the size cannot know whether this stream is too long or the
/// others are too short.
#[test]
fn surplus_bytes() {
    for surplus in [1, 100_000] {
        let script = Script::with_fault(Streams::Only(1), Fault::Surplus(surplus));
        check_bad_server("surplus bytes in the middle", &script, 3 * MIB, &[], &[4, 6]);
    }
}

#[test]
fn wrong_bytes_of_a_tiny_file() {
    for (script, size) in [
        (Script::with_fault(Streams::Only(0), Fault::Flipped(0)), 1),
        (Script::answering(Answering::WrongHash), 0),
        (Script::with_fault(Streams::Only(0), Fault::Surplus(1)), 0),
    ] {
        check_bad_server("a tiny file", &script, size, &[], &[6]);
    }
}

/// The size in the answer is the peer's word only: it must not make up for bytes, nor bytes for it.
#[test]
fn a_size_that_is_wrong() {
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
        let (script, what) = (Script::telling_size(&size), format!("told size: {what}"));
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
    let server = OriginalServer::start(&workspace.root().join("f"), Script::telling_size(&real.to_string()));
    PROGRAMS.fetch(server.addr, 4, "f", workspace.output("out")).run().assert_success();
    assert!(fs::read(workspace.output("out")).expect("it is there") == content);
}

#[test]
fn faults_when_the_size_is_told() {
    let size = 3 * MIB;
    for (what, streams, fault, codes) in [
        ("short", Streams::Only(1), Fault::EndsAfter(100_000), [4].as_slice()),
        ("two bytes short at the end", Streams::Only(3), Fault::EndsAfter(786_426), &[4]),
        ("reset", Streams::Only(1), Fault::ResetsAfter(100_000), &[4]),
        ("flipped", Streams::Only(1), Fault::Flipped(100_000), &[6]),
    ] {
        let told = Script::telling_size(&size.to_string());
        let script = Script { faults: vec![(streams, fault)], ..told };
        check_bad_server(&format!("{what}, size told"), &script, size, &[], codes);
    }
}

/// Who knows the size may leave what comes behind it unread, or refuse it; it never gets into the output.
#[test]
fn surplus_when_the_size_is_told() {
    let size = 3 * MIB;
    for (streams, surplus) in [(Streams::Only(1), 1), (Streams::Only(3), 1), (Streams::Every, 5_000_000)] {
        for engine in ENGINES {
            let workspace = Workspace::new();
            let content = workspace.serve_pattern("f", 1, size);
            fs::write(workspace.output("out"), BEFORE).expect("it is written");
            let faults = vec![(streams, Fault::Surplus(surplus))];
            let script = Script { faults, ..Script::telling_size(&size.to_string()) };
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
fn a_server_that_stalls() {
    let patience = ["--stall-timeout", "500ms"];
    for (what, script) in [
        ("one stream stalls", Script::with_fault(Streams::Only(2), Fault::StallsAfter(100_000))),
        ("all streams stall", Script::with_fault(Streams::Every, Fault::StallsAfter(0))),
        ("no answer", Script::answering(Answering::Nothing)),
        (
            "one stream stalls after its first byte",
            Script::with_fault(Streams::Only(0), Fault::StallsAfter(1)),
        ),
    ] {
        check_bad_server(what, &script, MIB, &patience, &[10]);
    }
}

#[test]
fn answers_that_are_none() {
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
fn no_answer_before_the_end() {
    for (bytes, codes) in [(b"".as_slice(), [4].as_slice()), (b"HTTP/1.0 200 OK\r\nServer:", &[4, 12])] {
        check_bad_server("cut off", &Script::answering(Answering::Bytes(bytes.to_vec())), 100, &[], codes);
    }
}

#[test]
fn refusals_of_the_server() {
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

/// The server's streams go to a port where nobody ever listens.
#[test]
fn nobody_listens_for_the_streams() {
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

/// Ends a server with `signal` while a client writes its output: caught between its first and its last byte.
fn check_server_ended(signal: Signal) {
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, 200 * MIB);
    let output = workspace.output("out");
    for _ in 0..10 {
        fs::write(&output, BEFORE).expect("it is written");
        let server = PROGRAMS.serve(&workspace.root()).options(["--drain-timeout", "100ms"]).ready();
        // Its digest is known from then on, so that the client's time is that of the streams.
        drop(Ask::new(server.addr, "f", 1).answer());
        let mut client = PROGRAMS.fetch(server.addr, 8, "f", &output).start();
        // It gets its length when the server has answered.
        let begun = || fs::metadata(workspace.output("out.dtpart")).is_ok_and(|part| part.len() > 0);
        until_true("the part file", || begun() || client.has_ended());
        client.signal(Signal::STOP);
        server.stop(signal, Duration::from_secs(10));
        client.signal(Signal::CONT);
        let outcome = client.finish_within(PATIENCE);
        if outcome.code == Some(0) {
            // It had all the bytes already; try again.
            continue;
        }
        outcome.assert_failure(4);
        workspace.assert_outputs(&["out"]);
        assert_eq!(fs::read(&output).expect("it is there"), BEFORE);
        return;
    }
    panic!("the client was never caught in the middle");
}

#[test]
fn a_server_killed_in_the_middle() {
    check_server_ended(Signal::KILL);
}

#[test]
fn a_server_told_to_end_in_the_middle() {
    check_server_ended(Signal::TERM);
}

/// A stream that the server cuts off must not look like one that is complete.
#[test]
fn a_stream_cut_off_by_the_end_of_its_server() {
    let workspace = Workspace::new();
    let content = workspace.serve_pattern("f", 1, 100 * MIB);
    let server = PROGRAMS.serve(&workspace.root()).options(["--drain-timeout", "100ms"]).ready();
    let mut stream = Ask::new(server.addr, "f", 1).offer().open(0);
    stream.read_exact(&mut [0; 1000]).expect("it begins");
    server.stop(Signal::TERM, Duration::from_secs(10)).assert_success();
    let rest = read_to_end(&stream);
    assert_eq!(rest.end, End::Reset);
    assert!(rest.bytes.len() < content.len() - 1000 && content[1000..].starts_with(&rest.bytes));
}

/// Fetches more than fits, and fails unless the disk's other files survive and its space comes back.
fn check_full_disk(what: &str, addr: SocketAddr, disk: &SmallDisk, options: &[&str]) {
    for engine in ["auto", "map", "write"] {
        fs::write(disk.file("out"), BEFORE).expect("it is written");
        let run =
            PROGRAMS.fetch(addr, 8, "f", disk.file("out")).options(["--engine", engine]).options(options);
        let outcome = run.run();
        assert_eq!(outcome.code, Some(7), "{what}, {engine}: {outcome}");
        outcome.assert_failure(7);
        assert_eq!(files_in(disk.path()), ["out"], "{what}, {engine}");
        assert_eq!(fs::read(disk.file("out")).expect("it is there"), BEFORE, "{what}, {engine}");
    }
}

#[test]
fn a_full_disk() {
    let Some(disk) = SmallDisk::mount() else { return };
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, 2 * SMALL_DISK);
    // The size is known before the first byte.
    let server = PROGRAMS.serve(&workspace.root()).ready();
    check_full_disk("the size is told", server.addr, &disk, &[]);
    // The size is known after the last byte.
    let original = OriginalServer::start(&workspace.root().join("f"), Script::swift());
    check_full_disk("the size is not told", original.addr, &disk, &[]);
    // With a file that fits, the same disk works.
    workspace.serve_pattern("f", 2, SMALL_DISK / 2);
    PROGRAMS.fetch(server.addr, 8, "f", disk.file("out")).run().assert_success();
    assert_eq!(fs::metadata(disk.file("out")).expect("it is there").len(), SMALL_DISK_BYTES / 2);
}

#[test]
fn a_disk_that_fills_up_on_the_way() {
    let Some(disk) = SmallDisk::mount() else { return };
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, SMALL_DISK / 2);
    for engine in ENGINES {
        let path = workspace.root().join("f");
        let original =
            OriginalServer::start(&path, Script::with_fault(Streams::Every, Fault::HoldsAfter(10)));
        let run = PROGRAMS.fetch(original.addr, 4, "f", disk.file("out")).options(["--engine", engine]);
        let client = run.start();
        until_true("all streams are open", || original.ids().len() == 4);
        // The other file takes what is left, whatever the client has reserved by now.
        let mut other = File::create(disk.file("other")).expect("another file is made");
        while other.write_all(&[1; 4096]).is_ok() {}
        let free = SMALL_DISK_BYTES - other.metadata().expect("its length is known").len();
        original.release();
        let outcome = client.finish_within(PATIENCE);
        // A client that had reserved the space is not disturbed.
        if outcome.code == Some(0) {
            assert!(free >= SMALL_DISK_BYTES / 2, "{engine}: there was no room for the bytes: {outcome}");
            fs::remove_file(disk.file("out")).expect("it is there");
        } else {
            outcome.assert_failure(7);
        }
        assert_eq!(files_in(disk.path()), ["other"], "{engine}");
        fs::remove_file(disk.file("other")).expect("it is ours");
    }
}

#[test]
fn a_full_device() {
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, MIB);
    let server = PROGRAMS.serve(&workspace.root()).ready();
    PROGRAMS.fetch(server.addr, 4, "f", "/dev/full").run().assert_failure(7);
    assert!(!fs::metadata("/dev/full").expect("it is still there").is_file());
}

#[test]
fn outputs_that_cannot_be_written() {
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, 1000);
    let server = PROGRAMS.serve(&workspace.root()).ready();
    fs::create_dir(workspace.output("folder")).expect("a folder is made");
    fs::create_dir(workspace.output("closed")).expect("a folder is made");
    fs::set_permissions(workspace.output("closed"), fs::Permissions::from_mode(0o555)).expect("closed");
    fs::write(workspace.output("file"), BEFORE).expect("it is written");
    for (what, output) in [
        ("a folder", "folder"),
        ("a folder, with a slash", "folder/"),
        ("no such folder", "missing/out"),
        ("below a file", "file/out"),
        ("in a closed folder", "closed/out"),
        ("a name with a slash behind it", "new/"),
    ] {
        let outcome = PROGRAMS.fetch(server.addr, 4, "f", workspace.output(output)).unprivileged().run();
        assert_eq!(outcome.code, Some(8), "{what}: {outcome}");
        outcome.assert_failure(8);
    }
    let long = workspace.output(&"n".repeat(300));
    PROGRAMS.fetch(server.addr, 4, "f", long).run().assert_failure(8);
    workspace.assert_outputs(&["closed", "file", "folder"]);
    assert_eq!(files_in(&workspace.output("folder")), [""; 0]);
    assert_eq!(files_in(&workspace.output("closed")), [""; 0]);
}

/// Answers one request by asking `server`, with `between` done before the client sees the answer.
fn meddle(
    server: SocketAddr,
    between: impl FnOnce() + Send + 'static,
) -> (SocketAddr, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let addr = listener.local_addr().expect("the address is known");
    let thread = std::thread::spawn(move || {
        let mut client = accept_within(&listener, PATIENCE).expect("the client comes");
        let mut request = Vec::new();
        while !request.ends_with(b"}") {
            let mut buffer = [0; 1000];
            let n = client.read(&mut buffer).expect("the request is read");
            assert!(n > 0, "half a request");
            request.extend_from_slice(&buffer[..n]);
        }
        let answer = exchange(server, &[&request], Afterwards::Wait);
        between();
        client.write_all(&answer.raw).expect("the answer is sent");
    });
    (addr, thread)
}

#[test]
fn a_source_that_disappears_after_the_answer() {
    let workspace = Workspace::new();
    let content = workspace.serve_pattern("f", 1, 3 * MIB);
    let server = PROGRAMS.serve(&workspace.root()).ready();
    let source = workspace.root().join("f");
    let (addr, thread) = meddle(server.addr, move || fs::remove_file(source).expect("it is removed"));
    PROGRAMS.fetch(addr, 8, "f", workspace.output("out")).run().assert_success();
    thread.join().expect("it meddled");
    assert!(fs::read(workspace.output("out")).expect("it is there") == content);
    PROGRAMS.fetch(server.addr, 8, "f", workspace.output("out")).run().assert_failure(3);
}

#[test]
fn a_source_that_changes_after_the_answer() {
    type Change = fn(&Path);
    let append: Change = |path| {
        let mut file = OpenOptions::new().append(true).open(path).expect("it opens");
        file.write_all(b"more").expect("it grows");
    };
    let overwrite: Change = |path| drop(write_pattern(path, 2, 3 * MIB));
    let shrink: Change = |path| {
        let file = OpenOptions::new().write(true).open(path).expect("it opens");
        file.set_len(1000).expect("it shrinks");
    };
    for (what, change) in [("appended", append), ("overwritten", overwrite), ("cut off", shrink)] {
        let workspace = Workspace::new();
        workspace.serve_pattern("f", 1, 3 * MIB);
        fs::write(workspace.output("out"), BEFORE).expect("it is written");
        let source = workspace.root().join("f");
        let mut server = PROGRAMS.serve(&workspace.root()).ready();

        let offer = Ask::new(server.addr, "f", 2).offer();
        change(&source);
        assert_eq!(offer.stream(1).end, End::Reset, "{what}: a stream of a changed file ends with RST");
        // The transfer may be over with that.
        let other = try_connect(offer.data).and_then(|mut stream| stream.write_all(&[0]).map(|()| stream));
        assert!(other.is_err() || other.is_ok_and(|stream| read_to_end(&stream).end == End::Reset), "{what}");

        workspace.serve_pattern("f", 1, 3 * MIB);
        let (addr, thread) = meddle(server.addr, move || change(&source));
        PROGRAMS.fetch(addr, 8, "f", workspace.output("out")).run().assert_failure(4);
        thread.join().expect("it meddled");
        workspace.assert_outputs(&["out"]);
        assert_eq!(fs::read(workspace.output("out")).expect("it is there"), BEFORE, "{what}");

        // The next request sees the file as it is now.
        PROGRAMS.fetch(server.addr, 8, "f", workspace.output("out")).run().assert_success();
        dt_tests::content::assert_same_file(&workspace.root().join("f"), &workspace.output("out"));
        server.assert_alive();
    }
}

/// A new file under the old name is another file: the transfer goes on with the old one.
#[test]
fn a_source_that_is_replaced_after_the_answer() {
    let workspace = Workspace::new();
    let content = workspace.serve_pattern("f", 1, 3 * MIB);
    let server = PROGRAMS.serve(&workspace.root()).ready();
    let offer = Ask::new(server.addr, "f", 8).offer();
    let replacement = workspace.serve_pattern("f.new", 2, 3 * MIB);
    fs::rename(workspace.root().join("f.new"), workspace.root().join("f")).expect("it is replaced");
    assert!(offer.download() == content);
    assert!(Ask::new(server.addr, "f", 8).offer().download() == replacement);
}

#[test]
fn fifty_clients_at_once() {
    let workspace = Workspace::new();
    let mut server = PROGRAMS.serve(&workspace.root()).ready();
    let shared = workspace.serve_pattern("shared", 99, MIB);
    let own: Vec<_> = (0..50)
        .map(|n| workspace.serve_pattern(&format!("f{n}"), n, 100_000 + usize::try_from(n).expect("small")))
        .collect();
    for same in [false, true] {
        let clients: Vec<_> = (0..50)
            .map(|n| {
                let name = if same { "shared".to_owned() } else { format!("f{n}") };
                PROGRAMS.fetch(server.addr, 4, name, workspace.output(&format!("out{n}"))).start()
            })
            .collect();
        for (n, client) in clients.into_iter().enumerate() {
            let outcome = client.finish_within(Duration::from_secs(60));
            assert_eq!(outcome.code, Some(0), "client {n} of 50: {outcome}");
            let received = fs::read(workspace.output(&format!("out{n}"))).expect("it is there");
            assert!(received == *if same { &shared } else { &own[n] }, "client {n} of 50");
        }
        assert_eq!(files_in(&workspace.outputs()).len(), 50);
    }
    server.assert_alive();
}

/// Fetches a file in a moment, which no peer before may have made impossible.
fn check_undisturbed(what: &str, addr: SocketAddr, workspace: &Workspace) {
    let expected = fs::read(workspace.root().join("f")).expect("it is there");
    let begin = Instant::now();
    let outcome = PROGRAMS.fetch(addr, 8, "f", workspace.output("out")).run();
    assert_eq!(outcome.code, Some(0), "{what}: {outcome}");
    assert!(fs::read(workspace.output("out")).expect("it is there") == expected, "{what}");
    assert!(begin.elapsed() < Duration::from_secs(10), "{what}: {outcome}");
}

#[test]
fn mute_peers_disturb_nobody() {
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, 3 * MIB);
    let mut server = PROGRAMS.serve(&workspace.root()).ready();
    let mute = connect(server.addr);
    let half = connect(server.addr);
    send(&half, &[b"POST f HTTP/1.1\r\nContent-Le"], Afterwards::Wait);
    let no_body = connect(server.addr);
    send(&no_body, &[b"POST f HTTP/1.1\r\nContent-Length: 14\r\n\r\n{"], Afterwards::Wait);
    let offer = Ask::new(server.addr, "f", 2).offer();
    let mute_stream = connect(offer.data);
    let unread = offer.open(1);
    check_undisturbed("mute peers", server.addr, &workspace);
    // The mute stream has not used up the other's slot.
    let first = offer.stream(0);
    assert_eq!(first.bytes.len(), 3 * MIB / 2 + 1);
    assert_eq!(read_to_end(&unread).bytes.len(), 3 * MIB / 2 - 1);
    server.assert_alive();
    drop((mute, half, no_body, mute_stream));
}

#[test]
fn mute_peers_are_let_go() {
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, 100 * MIB);
    let server = PROGRAMS.serve(&workspace.root()).options(["--stall-timeout", "500ms"]).ready();
    let offer = Ask::new(server.addr, "f", 2).offer();
    let mute_stream = connect(offer.data);
    let idle = offer.open(0);
    // Only the end is awaited; reading here would be what the server waits for.
    assert_eq!(read_to_end(&mute_stream).bytes, b"");
    until("the stream that nobody reads is reset", || {
        let mut fds = [rustix::event::PollFd::new(&idle, rustix::event::PollFlags::RDHUP)];
        let limit = rustix::event::Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        let ready = rustix::event::poll(&mut fds, Some(&limit)).is_ok_and(|n| n > 0);
        let ended = rustix::event::PollFlags::HUP | rustix::event::PollFlags::ERR;
        (ready && fds[0].revents().intersects(ended)).then_some(())
    });
    assert_eq!(read_to_end(&idle).end, End::Reset);
}

#[test]
fn garbage_disturbs_nobody() {
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, 3 * MIB);
    let mut server = PROGRAMS.serve(&workspace.root()).ready();
    let noise = pattern(77, 200_000);
    let long_header = [b"POST f HTTP/1.1\r\nX: ".as_slice(), &vec![b'x'; 4 << 20]].concat();
    let many_headers = [b"POST f HTTP/1.1\r\n".as_slice(), "A: b\r\n".repeat(200_000).as_bytes()].concat();
    for (what, bytes) in [
        ("noise", noise.as_slice()),
        ("zeros", &b"\0".repeat(100_000)),
        ("line ends", &b"\r\n".repeat(50_000)),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"),
        ("a long header", &long_header),
        ("many headers", &many_headers),
    ] {
        let stream = connect(server.addr);
        send(&stream, &[bytes], Afterwards::HalfClose);
        let received = read_to_end(&stream);
        let text = String::from_utf8_lossy(&received.bytes);
        assert!(text.is_empty() || text.starts_with("HTTP/1."), "{what}: {text:?}");
        assert!(!text.contains(" 200 "), "{what}: {text:?}");
    }
    let offer = Ask::new(server.addr, "f", 8).offer();
    for _ in 0..20 {
        let stream = connect(offer.data);
        send(&stream, &[&b"\xC8".repeat(50_000)], Afterwards::Wait);
        assert_eq!(read_to_end(&stream).bytes, b"");
    }
    check_undisturbed("garbage", server.addr, &workspace);
    offer.download();
    server.assert_alive();
}

#[test]
fn resetting_peers_disturb_nobody() {
    let workspace = Workspace::new();
    let content = workspace.serve_pattern("f", 1, 30 * MIB);
    let mut server = PROGRAMS.serve(&workspace.root()).ready();
    for bytes in
        [b"".as_slice(), b"POST f HT", b"POST f HTTP/1.1\r\nContent-Length: 14\r\n\r\n{\"threads\": 8}"]
    {
        for _ in 0..20 {
            let stream = connect(server.addr);
            send(&stream, &[bytes], Afterwards::Wait);
            reset(stream);
        }
    }
    let offer = Ask::new(server.addr, "f", 4).offer();
    // Two streams come and go before and while they are served; the others are not hurt.
    for _ in 0..10 {
        reset(connect(offer.data));
    }
    reset(offer.open(1));
    let mut third = offer.open(3);
    third.read_exact(&mut [0; 1000]).expect("it begins");
    reset(third);
    let part = 30 * MIB / 4 + 1;
    assert!(offer.stream(0).bytes == content[..part]);
    assert!(offer.stream(2).bytes == content[2 * part..3 * part]);
    check_undisturbed("resets", server.addr, &workspace);
    server.assert_alive();
}
