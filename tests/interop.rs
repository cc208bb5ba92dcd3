//! The programs and the original protocol in all pairings: reference client with `dtserver`, `dtclient` with the
//! reference server, and `dtclient` with `dtserver`.

use std::fs;
use std::time::Duration;

use dt_testkit::content::{assert_same_file, md5, md5_of_file, write_sparse};
use dt_testkit::original_client::Ask;
use dt_testkit::original_server::{Fault, OriginalServer, Script, StreamEnd, Streams};
use dt_testkit::pipe::Pipe;
use dt_testkit::process::Outcome;
use dt_testkit::programs;
use dt_testkit::programs::Programs;
use dt_testkit::sockets::{End, is_refused};
use dt_testkit::wait::until_true;
use dt_testkit::workspace::Workspace;

const PROGRAMS: Programs = programs!();
const MIB: usize = 1 << 20;
const STREAMS: [u8; 5] = [1, 2, 8, 11, 255];
const SMALL_SIZES: [usize; 6] = [0, 1, 7, 8, 4095, MIB];
const ENGINES: [&str; 2] = ["map", "write"];

/// Fails unless the client succeeded, printed the MD5, and left the expected file and nothing else.
fn check_received(outcome: &Outcome, workspace: &Workspace, expected: &[u8], context: &str) {
    assert_eq!(outcome.code, Some(0), "{context}: {outcome}");
    let output = workspace.output("out");
    let received = fs::read(&output).unwrap_or_else(|error| panic!("{context}: {error}, {outcome}"));
    assert_eq!(received.len(), expected.len(), "{context}: {outcome}");
    assert!(received == expected, "{context}: the bytes differ");
    workspace.assert_outputs(&["out"]);
    let last = outcome.stderr.lines().last().unwrap_or_default();
    assert!(last.contains(&md5(expected)), "{context}: no MD5 in the last line {last:?}");
    fs::remove_file(output).expect("it is ours");
}

fn check_reference_client(sizes: &[usize]) {
    let workspace = Workspace::new();
    let server = PROGRAMS.serve(&workspace.root()).ready();
    for (seed, size) in (1..).zip(sizes) {
        let name = format!("dir/f{size}");
        let content = workspace.serve_pattern(&name, seed, *size);
        for streams in STREAMS {
            let offer = Ask::new(server.addr, &name, streams).offer();
            assert_eq!(offer.answer.header("dt-size"), Some(size.to_string().as_str()));
            let received = offer.download();
            assert!(received == content, "{size} bytes over {streams} streams");
            until_true("the transfer's port is closed", || is_refused(offer.data));
        }
    }
}

fn check_dtclient_with_reference_server(sizes: &[usize], engine: &str, script: &Script) {
    let workspace = Workspace::new();
    for (seed, size) in (1..).zip(sizes) {
        let content = workspace.serve_pattern("f", seed, *size);
        for streams in STREAMS {
            let case = format!("{size} bytes over {streams} streams, engine {engine}");
            let server = OriginalServer::start(&workspace.root().join("f"), script.clone());
            let outcome = PROGRAMS
                .fetch(server.addr, streams, "remote/path", workspace.output("out"))
                .options(["--engine", engine])
                .run();
            check_received(&outcome, &workspace, &content, &case);
            let mut ids = server.ids();
            ids.sort_unstable();
            assert_eq!(ids, (0..streams).collect::<Vec<u8>>(), "{case}: every id once");
        }
    }
}

fn check_dtclient_with_dtserver(sizes: &[usize], engine: &str) {
    let workspace = Workspace::new();
    let server = PROGRAMS.serve(&workspace.root()).ready();
    for (seed, size) in (1..).zip(sizes) {
        let content = workspace.serve_pattern("dir/f", seed, *size);
        for (streams, protocol) in STREAMS.into_iter().flat_map(|streams| [(streams, "1"), (streams, "2")]) {
            let outcome = PROGRAMS
                .fetch(server.addr, streams, "dir/f", workspace.output("out"))
                .options(["--engine", engine, "--protocol", protocol, "--md5"])
                .run();
            let case = format!("{size} bytes over {streams} streams, engine {engine}, protocol {protocol}");
            check_received(&outcome, &workspace, &content, &case);
        }
    }
}

#[test]
fn reference_client_small_files() {
    check_reference_client(&SMALL_SIZES);
}

#[test]
fn reference_client_100_mib() {
    check_reference_client(&[100 * MIB]);
}

#[test]
fn reference_server_small_files_mapped() {
    check_dtclient_with_reference_server(&SMALL_SIZES, "map", &Script::swift());
}

#[test]
fn reference_server_small_files_written() {
    check_dtclient_with_reference_server(&SMALL_SIZES, "write", &Script::swift());
}

#[test]
fn reference_server_100_mib_mapped() {
    check_dtclient_with_reference_server(&[100 * MIB], "map", &Script::swift());
}

#[test]
fn reference_server_100_mib_written() {
    check_dtclient_with_reference_server(&[100 * MIB], "write", &Script::swift());
}

#[test]
fn both_programs_small_files() {
    check_dtclient_with_dtserver(&SMALL_SIZES, "map");
    check_dtclient_with_dtserver(&SMALL_SIZES, "write");
}

#[test]
fn both_programs_100_mib() {
    check_dtclient_with_dtserver(&[100 * MIB], "map");
    check_dtclient_with_dtserver(&[100 * MIB], "write");
}

/// Sizes around the places where the size of a part changes, and where one part less is needed.
#[test]
fn both_programs_odd_sizes() {
    let sizes: Vec<usize> = (2..=17).chain([254, 255, 256, 510, 65_024, 65_025, 65_026, MIB + 1]).collect();
    check_dtclient_with_dtserver(&sizes, "auto");
}

#[test]
fn original_server_with_all_its_quirks() {
    let quirks = Script { in_two_segments: true, ..Script::original() };
    let late = Script { listens_after: Duration::from_millis(300), ..Script::swift() };
    let resetting = Script { stream_end: StreamEnd::Reset, ..Script::swift() };
    for (what, script) in [("quirks", quirks), ("late listener", late), ("reset at the end", resetting)] {
        let workspace = Workspace::new();
        for (engine, size) in [("map", 3 * MIB), ("write", 4095), ("map", 3), ("auto", 0)] {
            let content = workspace.serve_pattern("f", 9, size);
            let server = OriginalServer::start(&workspace.root().join("f"), script.clone());
            let outcome = PROGRAMS
                .fetch(server.addr, 8, "remote/path", workspace.output("out"))
                .options(["--engine", engine])
                .run();
            check_received(&outcome, &workspace, &content, &format!("{what}, {size} bytes, {engine}"));
        }
    }
}

#[test]
fn original_server_understands_the_request() {
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, 8);
    for name in ["remote/path", "/remote/path", "a#b?c", "a%20b", "../up", "http:x"] {
        let server = OriginalServer::start(&workspace.root().join("f"), Script::swift());
        let run = PROGRAMS.fetch(server.addr, 8, name, workspace.output("out")).options(["--protocol", "1"]);
        run.run().assert_success();
        let [request] = &server.requests()[..] else { panic!("one request expected") };
        let request = String::from_utf8_lossy(request);
        let (head, body) = request.split_once("\r\n\r\n").expect("it has a head");
        // The original takes the target as the name, as it stands.
        assert_eq!(head.lines().next(), Some(format!("POST {name} HTTP/1.1").as_str()));
        assert_eq!(body, r#"{"threads": 8}"#);
        let head = head.to_lowercase();
        for header in [format!("host: {}", server.addr), "content-length: 14".to_owned()] {
            assert!(head.contains(&header), "{header} missing in {head:?}");
        }
    }
}

#[test]
fn every_form_of_the_request_is_accepted() {
    let workspace = Workspace::new();
    let server = PROGRAMS.serve(&workspace.root()).ready();
    let content = workspace.serve_pattern("dir/f7", 1, MIB + 7);
    let ask = |target: &str| Ask::new(server.addr, target, 8);
    for (what, ask) in [
        ("no leading slash", ask("dir/f7")),
        ("leading slash", ask("/dir/f7")),
        ("percent-encoded", ask("/dir%2Ff7")),
        ("HTTP/1.0", ask("dir/f7").http_1_0()),
        ("half-close", ask("dir/f7").half_close()),
        ("two segments", ask("dir/f7").body_apart()),
        ("HTTP/1.0, half-close, two segments", ask("dir/f7").http_1_0().half_close().body_apart()),
        ("keep-alive", ask("dir/f7").header("Connection: keep-alive")),
    ] {
        assert!(ask.offer().download() == content, "{what}");
    }
}

#[test]
fn bytes_after_the_id_are_harmless() {
    let workspace = Workspace::new();
    let mut server = PROGRAMS.serve(&workspace.root()).ready();
    let content = workspace.serve_pattern("f", 1, 3 * MIB);
    let streams = Ask::new(server.addr, "f", 8).offer().streams_with(&[0xFF; 100]);
    // A reset may follow the data, as with the original.
    for (id, stream) in (0..).zip(&streams) {
        let range = dt_testkit::content::part(3 << 20, 8, id);
        let [start, end] = [range.start, range.end].map(|n| usize::try_from(n).expect("small"));
        assert!(stream.bytes == content[start..end], "stream {id}: {} bytes", stream.bytes.len());
    }
    server.assert_alive();
}

/// Offsets beyond 32 bits, in all pairings and with both engines: one file, hashed once by each side.
#[test]
fn more_than_4_gib_in_all_pairings() {
    const SIZE: u64 = (4 << 30) + 12_345;
    let Some(workspace) = Workspace::roomy(SIZE, "more than 4 GiB") else { return };
    let limit = Duration::from_mins(3);
    let source = workspace.root().join("big");
    write_sparse(&source, SIZE, 8);
    let server = PROGRAMS.serve(&workspace.root()).ready();
    let (hash, offer) = std::thread::scope(|scope| {
        let hash = scope.spawn(|| md5_of_file(&source));
        // The server's hash needs longer than the reference client's usual patience.
        let run = PROGRAMS.fetch(server.addr, 8, "big", workspace.output("out")).limit(limit);
        let outcome = run.options(["--protocol", "1"]).run();
        let hash = hash.join().expect("the file is hashed");
        outcome.assert_success();
        assert!(outcome.stderr.contains(&hash), "{hash}: {outcome}");
        assert_same_file(&source, &workspace.output("out"));
        workspace.assert_outputs(&["out"]);
        (hash, Ask::new(server.addr, "big", 8).offer())
    });
    assert_eq!(offer.hash, hash);
    assert_eq!(offer.answer.header("dt-size"), Some(SIZE.to_string().as_str()));
    offer.compare_with(&source);
    drop(server);

    for engine in ENGINES {
        fs::remove_file(workspace.output("out")).expect("it is ours");
        let original = OriginalServer::start_knowing(&source, hash.clone(), Script::swift());
        let run = PROGRAMS.fetch(original.addr, 8, "big", workspace.output("out")).limit(limit);
        run.options(["--engine", engine]).run().assert_success();
        assert_same_file(&source, &workspace.output("out"));
        workspace.assert_outputs(&["out"]);
    }
}

/// Runs `check` with the address of `dtserver` and of the reference server, both serving `content` as `f`.
fn with_both_servers(workspace: &Workspace, mut check: impl FnMut(&str, std::net::SocketAddr)) {
    let server = PROGRAMS.serve(&workspace.root()).ready();
    check("dtserver", server.addr);
    let original = OriginalServer::start(&workspace.root().join("f"), Script::swift());
    check("the original", original.addr);
}

#[test]
fn standard_output_gets_the_bytes_in_order() {
    let workspace = Workspace::new();
    for size in [0, 1, 4095, 5 * MIB + 3] {
        let content = workspace.serve_pattern("f", 3, size);
        with_both_servers(&workspace, |server, addr| {
            for streams in [1, 8, 255] {
                let outcome = PROGRAMS.fetch(addr, streams, "f", "-").options(["--md5"]).run();
                outcome.assert_success();
                assert!(
                    outcome.stdout == content,
                    "{size} bytes over {streams} streams from {server}: {outcome}"
                );
                let last = outcome.stderr.lines().last().unwrap_or_default();
                assert!(last.contains(&md5(&content)), "{last}");
            }
        });
    }
    workspace.assert_outputs(&[]);
}

#[test]
fn pipe_gets_the_bytes_in_order() {
    let workspace = Workspace::new();
    let content = workspace.serve_pattern("f", 4, 5 * MIB + 3);
    let fifo = workspace.output("pipe");
    drop(Pipe::make(&fifo));
    with_both_servers(&workspace, |server, addr| {
        let mut pipe = Pipe::open(&fifo);
        let client = PROGRAMS.fetch(addr, 8, "f", &fifo).start();
        let received = [vec![pipe.first_byte()], pipe.drain()].concat();
        client.finish_within(Duration::from_secs(30)).assert_success();
        assert!(received == content, "{} bytes from {server}", received.len());
        // A pipe is written, not replaced.
        workspace.assert_outputs(&["pipe"]);
    });
}

#[test]
fn device_gets_the_bytes() {
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 5, MIB);
    with_both_servers(&workspace, |_, addr| {
        PROGRAMS.fetch(addr, 8, "f", "/dev/null").run().assert_success();
        let kind = fs::metadata("/dev/null").expect("it is still there").file_type();
        assert!(!kind.is_file(), "/dev/null was replaced by a file");
    });
}

#[test]
fn existing_output_is_replaced_at_the_end() {
    let workspace = Workspace::new();
    let content = workspace.serve_pattern("f", 6, MIB);
    for engine in ENGINES {
        fs::write(workspace.output("out"), "what was there before").expect("it is written");
        let path = workspace.root().join("f");
        let original =
            OriginalServer::start(&path, Script::with_fault(Streams::Only(3), Fault::HoldsAfter(70_000)));
        let run =
            PROGRAMS.fetch(original.addr, 8, "f", workspace.output("out")).options(["--engine", engine]);
        let client = run.start();
        until_true("all streams are open", || original.ids().len() == 8);
        assert_eq!(fs::read(workspace.output("out")).expect("it is there"), b"what was there before");
        original.release();
        check_received(&client.finish_within(Duration::from_secs(30)), &workspace, &content, engine);
    }
}

#[test]
fn streams_end_with_fin() {
    let workspace = Workspace::new();
    let server = PROGRAMS.serve(&workspace.root()).ready();
    workspace.serve_pattern("f", 7, MIB);
    let ends: Vec<End> =
        Ask::new(server.addr, "f", 8).offer().streams_with(&[]).iter().map(|s| s.end).collect();
    assert_eq!(ends, [End::Closed; 8]);
}
