//! Requests for packs that ask for too much or for what is outside, and outputs with planted links.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;

use dt_testkit::wait::PATIENCE;
use dt_testkit::workspace::Workspace;

use crate::{PROGRAMS, get};

#[test]
fn links_in_the_output_lead_nowhere() {
    let workspace = Workspace::new();
    fs::create_dir_all(workspace.root().join("d")).expect("it is made");
    fs::write(workspace.root().join("d/f"), "new").expect("it is written");
    fs::write(workspace.root().join("g"), "new").expect("it is written");
    fs::write(workspace.root().join("big"), vec![1; 1 << 20]).expect("it is written");
    let outside = workspace.path().join("outside");
    fs::create_dir(&outside).expect("it is made");
    fs::write(outside.join("g"), "before").expect("it is written");
    fs::create_dir(workspace.output("out")).expect("it is made");
    symlink(&outside, workspace.output("out/d")).expect("it is made");
    symlink(outside.join("g"), workspace.output("out/g")).expect("it is made");
    symlink(outside.join("g"), workspace.output("out/big")).expect("it is made");
    let server = PROGRAMS.serve(&workspace.root()).ready();
    let outcome = get(&server, &workspace, "", "out").run();
    assert_eq!(outcome.code, Some(8), "{outcome}");
    assert_eq!(fs::read(outside.join("g")).expect("it is there"), b"before", "{outcome}");
    assert_eq!(fs::read_dir(&outside).expect("it is there").count(), 1, "{outcome}");
    assert!(outcome.stderr.contains("a link in its path leads out"), "{outcome}");
    // The links themselves are replaced.
    assert_eq!(fs::read(workspace.output("out/g")).expect("it is there"), b"new");
    assert_eq!(fs::symlink_metadata(workspace.output("out/big")).expect("it is there").len(), 1 << 20);
}

#[test]
fn packs_are_bounded_and_confined() {
    let workspace = Workspace::new();
    fs::create_dir(workspace.root().join("d")).expect("it is made");
    fs::write(workspace.root().join("d/f"), "x").expect("it is written");
    fs::write(workspace.path().join("secret"), "secret").expect("it is written");
    symlink("../../secret", workspace.root().join("d/out")).expect("it is made");
    let server = PROGRAMS.serve(&workspace.root()).ready();
    let status = |target: &str, pack: &str| {
        let mut socket = TcpStream::connect(server.addr).expect("it listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("it is set");
        let body = format!("{{\"threads\": 1, \"protocol\": 2, \"pack\": {pack}}}");
        let head = format!("POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
        socket.write_all([head.as_bytes(), body.as_bytes()].concat().as_slice()).expect("it is sent");
        let mut answer = Vec::new();
        // A server that closes before it has read everything may reset.
        let _ = socket.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).split(' ').nth(1).and_then(|status| status.parse::<u16>().ok())
    };
    assert_eq!(status("/d/", "[\"f\"]"), Some(200));
    for (pack, expected) in [
        ("[\"../f\"]", 400),
        ("[\"/f\"]", 400),
        ("[\"\"]", 400),
        ("[1]", 400),
        ("7", 400),
        (&*format!("[{}\"f\"]", "\"f\",".repeat(2000)), 400),
        (&*format!("[\"{}\"]", "x".repeat(300_000)), 413),
    ] {
        assert_eq!(status("/d/", pack), Some(expected), "{pack:.60}");
    }
    // A directory is no file, whatever is wanted of it; a link that leads out is not followed.
    assert_eq!(status("/d", "[\"f\"]"), Some(404));
    assert_eq!(status("/d/", "[\"out\"]"), Some(200), "the pack says that it cannot be read");
    let outcome = get(&server, &workspace, "d/", "got").run();
    outcome.assert_success();
    assert!(!workspace.output("got/out").exists());
}
