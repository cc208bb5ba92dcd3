//! Served files that disappear, change or are replaced after the answer that promised them.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;

use dt_testkit::content::write_pattern;
use dt_testkit::events::Events;
use dt_testkit::original_client::Ask;
use dt_testkit::proxy::{Fate, Proxy};
use dt_testkit::sockets::{End, read_to_end, try_connect};
use dt_testkit::wait::{PATIENCE, until_true};
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
        // Protocol 1 cannot say it; protocol 2 can.
        for (protocol, code) in [("1", 4), ("2", 11)] {
            workspace.serve_pattern("f", 1, 3 * MIB);
            let source = source.clone();
            let proxy = meddle(server.addr, move || change(&source));
            let run = PROGRAMS.fetch(proxy.addr, 8, "f", workspace.output("out"));
            run.options(["--protocol", protocol, "--no-growth"]).run().assert_failure(code);
        }
        workspace.assert_outputs(&["out"]);
        assert_eq!(fs::read(workspace.output("out")).expect("it is there"), BEFORE, "{what}");

        // The next request sees the file as it is now.
        PROGRAMS.fetch(server.addr, 8, "f", workspace.output("out")).run().assert_success();
        dt_testkit::content::assert_same_file(&workspace.root().join("f"), &workspace.output("out"));
        server.assert_alive();
    }
}

/// A log that is always appended to is delivered as it was at the start.
#[test]
fn source_that_only_grows_is_delivered_at_its_first_length() {
    let workspace = Workspace::new();
    let content = workspace.serve_pattern("f", 1, 3 * MIB);
    let server = PROGRAMS.serve(&workspace.root()).ready();
    let source = workspace.root().join("f");
    // Known digests are of what the file was; they must not be what a file that has changed is compared with.
    for round in ["unknown", "known"] {
        workspace.serve_pattern("f", 1, 3 * MIB);
        if round == "known" {
            std::thread::sleep(std::time::Duration::from_millis(2500));
            PROGRAMS
                .fetch(server.addr, 8, "f", workspace.output("out"))
                .options(["--md5"])
                .run()
                .assert_success();
        }
        for options in [&["--json"][..], &["--json", "--md5"]] {
            let source = source.clone();
            let proxy = meddle(server.addr, move || {
                let mut file = OpenOptions::new().append(true).open(source).expect("it opens");
                file.write_all(&vec![7; 100_000]).expect("it grows");
            });
            let size = fs::metadata(workspace.root().join("f")).expect("it is there").len();
            let outcome = PROGRAMS.fetch(proxy.addr, 8, "f", workspace.output("out")).options(options).run();
            outcome.assert_success();
            let events = Events::of(&outcome);
            let notice = events.only("notice", &["what"]);
            assert_eq!((&notice["kind"], &notice["delivered"]), (&"grown".into(), &size.into()), "{outcome}");
            let delivered = fs::read(workspace.output("out")).expect("it is there");
            assert_eq!(u64::try_from(delivered.len()), Ok(size));
            assert!(delivered[..3 * MIB] == content && delivered[3 * MIB..].iter().all(|byte| *byte == 7));
        }
    }
}

/// Overwritten and appended to is no growth: what was sent and what is there differ.
#[test]
fn source_that_is_overwritten_while_it_grows_is_an_error() {
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, 12 * MIB);
    let server = PROGRAMS.serve(&workspace.root()).ready();
    let source = workspace.root().join("f");
    let client =
        PROGRAMS.fetch(server.addr, 4, "f", workspace.output("out")).options(["--limit-rate", "4M"]).start();
    let journal = workspace.output("out.dtjournal");
    until_true("blocks are saved", || fs::metadata(&journal).is_ok_and(|journal| journal.len() > 600));
    write_pattern(&source, 2, 13 * MIB);
    let outcome = client.finish_within(PATIENCE);
    assert!(matches!(outcome.code, Some(6 | 11)), "{outcome}");
    assert!(!workspace.output("out").exists());
}

/// What the kernel makes up has another length than its size says.
#[test]
fn made_up_files_are_read_to_their_end() {
    let workspace = Workspace::new();
    for (root, name) in [
        ("/proc/sys/kernel", "ostype"),
        ("/proc", "version"),
        ("/sys/kernel/mm/transparent_hugepage", "enabled"),
    ] {
        let path = Path::new(root).join(name);
        let Ok(expected) = fs::read(&path) else {
            eprintln!("SKIPPED: {} is not there", path.display());
            continue;
        };
        let server = PROGRAMS.serve(Path::new(root)).ready();
        for protocol in ["1", "2"] {
            let run = PROGRAMS
                .fetch(server.addr, 4, name, workspace.output("out"))
                .options(["--protocol", protocol]);
            run.run().assert_success();
            assert_eq!(
                fs::read(workspace.output("out")).expect("it is there"),
                expected,
                "{}",
                path.display()
            );
        }
    }
    fs::remove_file(workspace.output("out")).expect("it is ours");
    let server = PROGRAMS.serve(Path::new("/proc")).ready();
    let outcome = PROGRAMS.fetch(server.addr, 4, "kmsg", workspace.output("out")).run();
    outcome.assert_failure(3);
    workspace.assert_outputs(&[]);
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
