//! Listings: what `ls` prints and what the server sends, whatever the names are.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};

use dt_testkit::programs;
use dt_testkit::programs::{Programs, Run, Server};
use dt_testkit::wait::PATIENCE;
use dt_testkit::workspace::Workspace;

const PROGRAMS: Programs = programs!();

fn list(server: &Server, path: &str, options: &[&str]) -> Run {
    PROGRAMS.client().options(["ls"]).options(options).args([format!("{}/{path}", server.addr)])
}

fn printed(server: &Server, path: &str, options: &[&str]) -> Vec<String> {
    let outcome = list(server, path, options).run();
    outcome.assert_success();
    String::from_utf8_lossy(&outcome.stdout).lines().map(str::to_owned).collect()
}

fn tree() -> (Workspace, Server) {
    let workspace = Workspace::new();
    let root = workspace.root();
    fs::create_dir_all(root.join("b/deep")).expect("it is made");
    fs::write(root.join("b/deep/f"), "four").expect("it is written");
    fs::write(root.join("a"), "").expect("it is written");
    fs::write(root.join(".hidden"), "").expect("it is written");
    fs::write(root.join("x.dtpart"), "").expect("it is written");
    symlink("b", root.join("link")).expect("it is made");
    symlink("../../outside", root.join("out")).expect("it is made");
    let server = PROGRAMS.serve(&root).ready();
    (workspace, server)
}

#[test]
fn directory_is_listed_sorted_and_without_what_is_hidden() {
    let (workspace, server) = tree();
    assert_eq!(printed(&server, "", &[]), ["a", "b/", "link", "out"]);
    assert_eq!(printed(&server, "", &["-R"]), ["a", "b/", "b/deep/", "b/deep/f", "link", "out"]);
    assert_eq!(printed(&server, "", &["-a"]), [".hidden", "a", "b/", "link", "out", "x.dtpart"]);
    assert_eq!(printed(&server, "b/deep", &[]), ["f"]);
    assert_eq!(printed(&server, "b/deep/f", &[]), ["f"]);
    // A link inside is followed in the name, not in the listing.
    assert_eq!(printed(&server, "link/", &["-R"]), ["deep/", "deep/f"]);
    fs::set_permissions(workspace.root().join("b/deep/f"), Permissions::from_mode(0o640))
        .expect("it is ours");
    let long = printed(&server, "b/deep", &["-l"]);
    let words: Vec<&str> = long[0].split_whitespace().collect();
    assert_eq!((words[0], words[1], words[3]), ("-rw-r-----", "4", "f"), "{long:?}");
    assert!(printed(&server, "", &["-l"])[2].ends_with("link -> b"), "links show where they lead");
}

#[test]
fn what_cannot_be_listed_is_reported() {
    let (workspace, server) = tree();
    for path in ["missing", "..", "b/../../", "out", "a/x"] {
        let outcome = list(&server, path, &[]).run();
        outcome.assert_failure(3);
        outcome.assert_one_line("dtclient: ");
    }
    let unlisted = PROGRAMS.serve(&workspace.root()).options(["--no-list"]).ready();
    let outcome = list(&unlisted, "", &[]).run();
    outcome.assert_failure(3);
    assert!(outcome.error().contains("listing is not permitted"), "{outcome}");
    if !rustix::process::geteuid().is_root() {
        return;
    }
    // The rest is listed.
    for folder in [workspace.path().to_owned(), workspace.root()] {
        fs::set_permissions(folder, Permissions::from_mode(0o755)).expect("it is ours");
    }
    fs::set_permissions(workspace.root().join("b"), Permissions::from_mode(0o000)).expect("it is ours");
    let other = PROGRAMS.serve(&workspace.root()).unprivileged().ready();
    let outcome = list(&other, "", &["-R"]).run();
    outcome.assert_failure(3);
    assert!(outcome.stderr.contains("cannot list b: permission denied"), "{outcome}");
    assert_eq!(String::from_utf8_lossy(&outcome.stdout), "a\nb/\nlink\nout\n");
}

#[test]
fn names_of_any_bytes_are_harmless_and_complete() {
    let workspace = Workspace::new();
    let names: [&[u8]; 6] =
        [b"new\nline", b"\x1b[31mred", b"\xff\xfe", "ümlaut".as_bytes(), b"a b", b"q\"uote"];
    for name in names {
        fs::write(workspace.root().join(OsStr::from_bytes(name)), "").expect("it is written");
    }
    let server = PROGRAMS.serve(&workspace.root()).ready();
    let lines = printed(&server, "", &[]);
    assert_eq!(lines.len(), names.len(), "one line each: {lines:?}");
    assert!(!lines.concat().contains('\u{1b}'), "{lines:?}");
    let json = printed(&server, "", &["--json"]);
    let paths: Vec<String> = json
        .iter()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("it is JSON")["path"].to_string())
        .collect();
    assert!(paths.iter().any(|path| path == "\"new\\nline\""), "{paths:?}");
}

/// A hundred thousand entries: neither side holds them all, and a client that stops early does not hold the server.
#[test]
fn long_listing_can_be_cut_off() {
    let workspace = Workspace::new();
    for n in 0..20_000 {
        fs::write(workspace.root().join(format!("{n:06}")), "").expect("it is written");
    }
    let server = PROGRAMS.serve(&workspace.root()).ready();
    assert_eq!(printed(&server, "", &[]).len(), 20_000);
    let mut socket = TcpStream::connect(server.addr).expect("it listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("it is set");
    socket
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\nAccept: application/x-ndjson\r\n\r\n")
        .expect("it is sent");
    let mut beginning = [0; 1000];
    socket.read_exact(&mut beginning).expect("it answers");
    assert!(beginning.starts_with(b"HTTP/1.1 200 "));
    drop(socket);
    assert_eq!(printed(&server, "", &[]).len(), 20_000);
}

/// An answer that ends early, or is something else, does not count as a listing.
#[test]
fn incomplete_listings_are_errors() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n";
    let entry = "{\"path\":\"a\",\"type\":\"file\",\"size\":1,\"modified\":1,\"mode\":420}\n";
    for (body, code) in [
        (format!("{head}\r\n{entry}"), 4),
        (format!("{head}Content-Length: 9999\r\n\r\n{entry}"), 4),
        (format!("{head}\r\nnot json\n"), 12),
        (format!("{head}\r\n{}", entry.replace("\"a\"", "\"../a\"")), 12),
        (format!("{head}Transfer-Encoding: chunked\r\n\r\nzz\r\n"), 12),
        ("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>".to_owned(), 12),
        ("HTTP/1.1 501 Not Implemented\r\nContent-Length: 0\r\n\r\n".to_owned(), 12),
        ("SSH-2.0-x\r\n".to_owned(), 12),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let place = format!("{}/", listener.local_addr().expect("it is bound"));
        let client = PROGRAMS.client().options(["ls"]).args([place]).start();
        let mut socket = listener.accept().expect("the client connects").0;
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte).expect("a request arrives");
            request.extend(byte);
        }
        socket.write_all(body.as_bytes()).expect("it is sent");
        drop(socket);
        let outcome = client.finish_within(PATIENCE);
        assert_eq!(outcome.code, Some(code), "{body}: {outcome}");
    }
}
