//! The rate that `dtclient` keeps to, over all streams together, whichever server it asks.
//!
//! Of time, only the least that a transfer takes is asserted: a busy machine makes it no shorter.

use std::fs;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use dt_testkit::original_server::{OriginalServer, Script};
use dt_testkit::programs::Run;
use dt_testkit::wait::until_true;
use dt_testkit::workspace::Workspace;
use rustix::process::Signal;

use crate::{MIB, PROGRAMS, served};

/// A transfer at this rate in protocol 1.
fn limited(addr: SocketAddr, streams: u8, rate: &str, workspace: &Workspace, output: &str) -> Run {
    to(addr, streams, workspace, output).options(["--protocol", "1", "--limit-rate", rate])
}

fn to(addr: SocketAddr, streams: u8, workspace: &Workspace, output: &str) -> Run {
    match output {
        "-" => PROGRAMS.fetch(addr, streams, "f", "-"),
        name => PROGRAMS.fetch(addr, streams, "f", workspace.output(name)),
    }
}

/// Runs all of these at once, each into its output; they must take `least`, and bring `content`.
fn check_all(runs: Vec<(String, Run)>, least: Duration, workspace: &Workspace, content: &[u8]) {
    let check = |name: &str, run: Run| {
        let outcome = run.run();
        assert_eq!(outcome.code, Some(0), "{name}: {}", outcome.stderr);
        assert!(outcome.took >= least, "{name}: {:?} for {} bytes", outcome.took, content.len());
        let received = match name {
            "-" => outcome.stdout,
            name => fs::read(workspace.output(name)).expect("it is there"),
        };
        assert!(received == content, "{name}: {} bytes", received.len());
    };
    thread::scope(|scope| {
        for (name, run) in runs {
            scope.spawn(move || check(&name, run));
        }
    });
}

/// 2 MiB at 1 MiB/s, a sixth of a second's worth of which may arrive at once.
#[test]
fn rate_limit_is_for_all_streams_together() {
    let (workspace, server, content) = served(2 * MIB, &[]);
    // This one does not report the size.
    let original = OriginalServer::start(&workspace.root().join("f"), Script::swift());
    let mut runs = Vec::new();
    for (peer, addr) in [("dtserver", server.addr), ("original", original.addr)] {
        for streams in [1, 8] {
            for engine in ["map", "write"] {
                let name = format!("{peer}-{streams}-{engine}");
                let run = limited(addr, streams, "1M", &workspace, &name).options(["--engine", engine]);
                runs.push((name, run));
            }
            runs.push(("-".to_owned(), limited(addr, streams, "1M", &workspace, "-")));
        }
    }
    // It speaks protocol 1 without being asked to.
    let run = to(original.addr, 8, &workspace, "auto").options(["--limit-rate", "1M"]);
    runs.push(("auto".to_owned(), run));
    check_all(runs, Duration::from_millis(1800), &workspace, &content);
}

#[test]
fn rate_of_one_byte_per_second() {
    for size in [0, 3] {
        let (workspace, server, content) = served(size, &[]);
        let least = Duration::from_secs(if size == 0 { 0 } else { 2 });
        let runs = [1, 8].map(|streams| {
            let name = format!("{streams}");
            let run = limited(server.addr, streams, "1", &workspace, &name);
            (name, run)
        });
        check_all(runs.into(), least, &workspace, &content);
    }
}

/// The bytes of most streams wait in this machine for longer than a stream may be silent.
#[test]
fn unread_stream_has_not_stalled() {
    let (workspace, server, content) = served(200_000, &[]);
    let original = OriginalServer::start(&workspace.root().join("f"), Script::swift());
    let runs = [("dtserver", server.addr), ("original", original.addr)].map(|(name, addr)| {
        let run = limited(addr, 255, "40K", &workspace, name).options(["--stall-timeout", "2s"]);
        (name.to_owned(), run)
    });
    check_all(runs.into(), Duration::from_secs(4), &workspace, &content);
}

/// The earlier parts of the file could take all of the rate for longer than the server waits.
#[test]
fn later_streams_are_read_too() {
    let (workspace, server, content) = served(240 * MIB, &["--stall-timeout", "4s"]);
    let run = limited(server.addr, 4, "45M", &workspace, "out");
    check_all(vec![("out".to_owned(), run)], Duration::from_secs(5), &workspace, &content);
}

#[test]
fn client_waiting_for_its_limit_can_be_interrupted() {
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, MIB);
    for output in ["out", "-"] {
        let original = OriginalServer::start(&workspace.root().join("f"), Script::swift());
        let client = limited(original.addr, 8, "1", &workspace, output).start();
        until_true("all streams are open", || original.ids().len() == 8);
        client.signal(Signal::INT);
        client.finish_within(Duration::from_secs(5)).assert_failure(130);
        workspace.assert_outputs(&[]);
    }
}
