//! Served files that disappear, change or are replaced after the answer that promised them.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;

use dt_testkit::content::write_pattern;
use dt_testkit::original_client::Ask;
use dt_testkit::proxy::{Fate, Proxy};
use dt_testkit::sockets::{End, read_to_end, try_connect};
use dt_testkit::workspace::Workspace;

use crate::{BEFORE, MIB, PROGRAMS};

/// A proxy before `server` that does something between the server's answer to the first request and the client's sight of it.
fn meddle(server: SocketAddr, between: impl FnOnce() + Send + 'static) -> Proxy {
    let between = Mutex::new(Some(between));
    Proxy::start(server, move |_| {
        if let Some(between) = between.lock().expect("no holder panics").take() {
            between();
        }
        Fate::fine()
    })
}

#[test]
fn source_removed_after_the_answer() {
    let workspace = Workspace::new();
    let content = workspace.serve_pattern("f", 1, 3 * MIB);
    let server = PROGRAMS.serve(&workspace.root()).ready();
    let source = workspace.root().join("f");
    let proxy = meddle(server.addr, move || fs::remove_file(source).expect("it is removed"));
    PROGRAMS.fetch(proxy.addr, 8, "f", workspace.output("out")).run().assert_success();
    assert!(fs::read(workspace.output("out")).expect("it is there") == content);
    PROGRAMS.fetch(server.addr, 8, "f", workspace.output("out")).run().assert_failure(3);
}

#[test]
fn source_changed_after_the_answer() {
    type Change = fn(&Path);
    let overwrite: Change = |path| drop(write_pattern(path, 2, 3 * MIB));
    let shrink: Change = |path| {
        let file = OpenOptions::new().write(true).open(path).expect("it opens");
        file.set_len(1000).expect("it shrinks");
    };
    for (what, change) in [("overwritten", overwrite), ("cut off", shrink)] {
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
        // Protocol 1 cannot say it; protocol 2 can.
        for (protocol, code) in [("1", 4), ("2", 11)] {
            workspace.serve_pattern("f", 1, 3 * MIB);
            let source = source.clone();
            let proxy = meddle(server.addr, move || change(&source));
            let run = PROGRAMS.fetch(proxy.addr, 8, "f", workspace.output("out"));
            run.options(["--protocol", protocol]).run().assert_failure(code);
        }
        workspace.assert_outputs(&["out"]);
        assert_eq!(fs::read(workspace.output("out")).expect("it is there"), BEFORE, "{what}");

        // The next request sees the file as it is now.
        PROGRAMS.fetch(server.addr, 8, "f", workspace.output("out")).run().assert_success();
        dt_testkit::content::assert_same_file(&workspace.root().join("f"), &workspace.output("out"));
        server.assert_alive();
    }
}

/// The digest is of the bytes that were there when it was requested.
#[test]
fn source_that_grows_after_the_answer_arrives_as_it_was() {
    for protocol in ["1", "2"] {
        let workspace = Workspace::new();
        let content = workspace.serve_pattern("f", 1, 3 * MIB);
        let server = PROGRAMS.serve(&workspace.root()).ready();
        let source = workspace.root().join("f");
        let proxy = meddle(server.addr, move || {
            let mut file = OpenOptions::new().append(true).open(source).expect("it opens");
            file.write_all(b"more").expect("it grows");
        });
        let run = PROGRAMS.fetch(proxy.addr, 8, "f", workspace.output("out"));
        run.options(["--protocol", protocol]).run().assert_success();
        assert!(fs::read(workspace.output("out")).expect("it is there") == content, "protocol {protocol}");
    }
}

/// A new file under the old name is another file: the transfer continues with the old one.
#[test]
fn source_replaced_after_the_answer() {
    let workspace = Workspace::new();
    let content = workspace.serve_pattern("f", 1, 3 * MIB);
    let server = PROGRAMS.serve(&workspace.root()).ready();
    let offer = Ask::new(server.addr, "f", 8).offer();
    let replacement = workspace.serve_pattern("f.new", 2, 3 * MIB);
    fs::rename(workspace.root().join("f.new"), workspace.root().join("f")).expect("it is replaced");
    assert!(offer.download() == content);
    assert!(Ask::new(server.addr, "f", 8).offer().download() == replacement);
}

/// Files whose size does not say how many bytes they have, as kernels and FUSE programs make them.
#[test]
fn pseudo_files_arrive_as_reading_gives_them() {
    let workspace = Workspace::new();
    let server = PROGRAMS.serve(Path::new("/")).ready();
    for name in ["/proc/version", "/proc/self/limits", "/sys/kernel/mm/transparent_hugepage/enabled"] {
        let Ok(expected) = fs::read(name) else {
            eprintln!("skipped: this system has no {name}");
            continue;
        };
        for protocol in ["1", "2"] {
            let run = PROGRAMS.fetch(server.addr, 4, name, workspace.output("out"));
            run.options(["--protocol", protocol]).run().assert_success();
            let published = fs::read(workspace.output("out")).expect("it is there");
            // `self` is the server there.
            let is_same = published == expected || name.contains("self");
            assert!(!published.is_empty() && is_same, "{name}, protocol {protocol}");
        }
    }
}

#[test]
fn what_is_no_file_is_named_in_the_refusal() {
    let workspace = Workspace::new();
    fs::create_dir(workspace.root().join("folder")).expect("it is made");
    let _socket =
        std::os::unix::net::UnixListener::bind(workspace.root().join("socket")).expect("it is bound");
    let server = PROGRAMS.serve(&workspace.root()).ready();
    for (name, what) in [("folder", "it is a directory"), ("socket", "it is a socket")] {
        let outcome = PROGRAMS.fetch(server.addr, 4, name, workspace.output("out")).run();
        outcome.assert_failure(3);
        assert!(outcome.error().contains(what), "{outcome}");
    }
    workspace.assert_outputs(&[]);
}
