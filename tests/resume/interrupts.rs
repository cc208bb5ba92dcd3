//! Ctrl-C and every other end that leaves something to go on with, and the next run of the same command.

use std::fs;
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dt_testkit::content::pattern;
use dt_testkit::events::{Events, number};
use dt_testkit::pipe::Pipe;
use dt_testkit::proxy::{Carries, Ending, Fate, Proxy};
use dt_testkit::range_server::{Lie, RangeServer};
use dt_testkit::wait::{PATIENCE, until_true};
use dt_testkit::workspace::Workspace;
use rustix::process::Signal;

use crate::{ENGINES, MIB, PROGRAMS, STREAMS, Scene};

#[test]
fn interrupted_and_run_again() {
    let scene = Scene::new(12 * MIB + 5);
    for engine in ENGINES {
        for signal in [Signal::INT, Signal::TERM] {
            let what = format!("{signal:?}, {engine}");
            fs::write(scene.output(), "before").expect("it is written");
            let mut client = scene.slowly().options(["--engine", engine]).start();
            scene.until_recorded(&mut client, 20);
            client.signal(signal);
            let outcome = client.finish_within(PATIENCE);
            outcome.assert_failure(130);
            assert_eq!(fs::read(scene.output()).expect("it is there"), b"before", "{what}");
            fs::remove_file(scene.output()).expect("it is ours");
            scene.assert_kept();
            scene.go_on_with(scene.fetch().options(["--engine", engine]), scene.recorded(), &what);
        }
    }
}

/// The last line says what to type, with what this run was started with.
#[test]
fn how_to_go_on_is_said() {
    let scene = Scene::new(12 * MIB);
    let (addr, output) = (scene.server.addr.to_string(), scene.output());
    let run = PROGRAMS.fetch(scene.server.addr, STREAMS, "f", &output);
    let mut client = run.options(["--limit-rate", "12M", "--protocol", "2"]).start();
    scene.until_recorded(&mut client, 1);
    client.signal(Signal::INT);
    let outcome = client.finish_within(PATIENCE);
    outcome.assert_failure(130);
    let last = outcome.stderr.lines().last().unwrap_or_default();
    let words: Vec<&str> = last.split_whitespace().collect();
    let command = [addr.as_str(), "4", "f", output.to_str().expect("it is UTF-8")];
    assert!(words.windows(4).any(|four| four == command), "{command:?} is missing in {last:?}");
    assert!(words.contains(&"--limit-rate"), "an option is missing in {last:?}");
}

/// The command that is said goes on, also where this run was told to begin anew.
#[test]
fn what_is_said_goes_on_after_a_run_that_began_anew() {
    let scene = Scene::new(12 * MIB);
    for (option, variable) in
        [(Some("--no-resume"), None), (None, Some("1")), (Some("--no-resume"), Some("1"))]
    {
        let what = format!("{option:?}, {variable:?}");
        let run = PROGRAMS.fetch(scene.server.addr, STREAMS, "f", scene.output());
        let run = run.options(["--limit-rate", "12M"]).options(option);
        let run = variable.into_iter().fold(run, |run, value| run.env("DT_NO_RESUME", value));
        let mut client = run.start();
        scene.until_recorded(&mut client, 40);
        client.signal(Signal::INT);
        let outcome = client.finish_within(PATIENCE);
        outcome.assert_failure(130);
        let (_, command) = outcome.stderr.trim_end().split_once("to go on, run ").expect("it is said how");
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).envs(variable.map(|value| ("DT_NO_RESUME", value)));
        let again = shell.output().expect("there is a shell");
        let said = String::from_utf8_lossy(&again.stderr);
        assert!(said.contains("there before"), "{what}: it began anew: {command}: {said}");
        assert!(fs::read(scene.output()).expect("it is there") == scene.content, "{what}");
        fs::remove_file(scene.output()).expect("it is ours");
    }
}

/// Again and again until it is whole: nothing is fetched twice but what was in flight.
#[test]
fn interrupted_many_times() {
    let scene = Scene::new(12 * MIB);
    let mut known = 0;
    for round in 0..5 {
        let before = known;
        known = scene.interrupted_after(before + 20, scene.slowly());
        assert!(known >= before + 20, "round {round}: {known} after {before}");
    }
    scene.go_on(known, "after five interrupts");
}

#[test]
fn an_interrupt_before_the_first_block_leaves_nothing() {
    let workspace = Workspace::new();
    let server = RangeServer::start(pattern(1, MIB), 64 << 10, Lie::Mute);
    for engine in ENGINES {
        let run = PROGRAMS.fetch(server.addr, 4, "f", workspace.output("out")).options(["--engine", engine]);
        let asked = server.streams().len();
        let client = run.start();
        until_true("its streams", || server.streams().len() >= asked + 4);
        client.signal(Signal::INT);
        client.finish_within(PATIENCE).assert_failure(130);
        workspace.assert_outputs(&[]);
    }
}

/// A file of one block has no journal, so that nothing of it stays.
#[test]
fn what_is_not_kept_is_not_said_to_be() {
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, 1000);
    let server = PROGRAMS.serve(&workspace.root()).ready();
    let wrong = format!("blake3={}", "0".repeat(64));
    let run = PROGRAMS.fetch(server.addr, 4, "f", workspace.output("out"));
    let outcome = run.options(["--json", "--checksum", &wrong]).run();
    outcome.assert_failure(6);
    workspace.assert_outputs(&[]);
    assert!(!outcome.error().contains("kept"), "{outcome}");
    assert_eq!(Events::of(&outcome).count("notice"), 0, "{outcome}");
}

/// Nor is it said that nothing is kept, where an earlier run has left something.
#[test]
fn what_is_kept_is_not_said_to_be_lost() {
    let scene = Scene::new(12 * MIB);
    let known = scene.interrupted();
    let mute = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let addr = mute.local_addr().expect("it has an address");
    let client = PROGRAMS.fetch(addr, STREAMS, "f", scene.output()).start();
    let waiting = mute.accept().expect("the client comes");
    client.signal(Signal::INT);
    let outcome = client.finish_within(PATIENCE);
    outcome.assert_failure(130);
    drop(waiting);
    assert!(!outcome.error().contains("kept"), "{outcome}");
    scene.assert_kept();
    scene.go_on(known, "after one that has not begun");
}

#[test]
fn nothing_is_kept_of_what_goes_into_a_pipe() {
    let scene = Scene::new(12 * MIB);
    let fifo = scene.workspace.output("pipe");
    let mut pipe = Pipe::make(&fifo);
    let run = PROGRAMS.fetch(scene.server.addr, 4, "f", &fifo).options(["--limit-rate", "8M"]);
    let client = run.start();
    pipe.first_byte();
    client.signal(Signal::INT);
    client.finish_within(PATIENCE).assert_failure(130);
    scene.workspace.assert_outputs(&["pipe"]);

    let run = PROGRAMS.fetch(scene.server.addr, 4, "f", "-").options(["--limit-rate", "8M"]);
    let folder = scene.workspace.output("tmp");
    fs::create_dir(&folder).expect("a folder is made");
    let client = run.env("TMPDIR", &folder).start();
    until_true("the first bytes", || !client.stdout().is_empty());
    client.signal(Signal::INT);
    let outcome = client.finish_within(PATIENCE);
    assert_eq!(outcome.code, Some(130), "{}", outcome.stderr);
    assert_eq!(dt_testkit::workspace::files_in(&folder), [""; 0]);
    scene.workspace.assert_outputs(&["pipe", "tmp"]);
}

/// Every way to fail on the way keeps what was verified, through a proxy that is mended for the second run.
#[test]
fn failures_keep_what_was_verified() {
    for (ending, stall_timeout, code) in
        [(Some(Ending::Reset), "20s", 4), (Some(Ending::Stall), "500ms", 10), (None, "20s", 6)]
    {
        let scene = Scene::new(12 * MIB);
        let broken = Arc::new(AtomicBool::new(true));
        let plan = Arc::clone(&broken);
        let (late, size) = (9 << 20, scene.size());
        let proxy = Proxy::on_streams(scene.server.addr, move |connection| {
            match (plan.load(Ordering::SeqCst), ending, connection.attempt) {
                (false, ..) => Fate::fine(),
                (true, None, _) => Fate::fine().flips_in_file(late),
                (true, Some(ending), 0) => Fate::fine().ends(size / 6, ending),
                (true, Some(ending), _) => Fate::fine().ends(0, ending),
            }
        });
        let run = || {
            let run = PROGRAMS.fetch(proxy.addr, STREAMS, "f", scene.output());
            run.options(["--json", "--stall-timeout", stall_timeout, "--retries", "1"])
        };
        proxy.set_rate(Some(24 << 20));
        let outcome = run().run();
        outcome.assert_failure(code);
        scene.assert_kept();
        let known = scene.recorded();
        assert!(known >= 40, "{ending:?}: {known} blocks kept: {outcome}");
        broken.store(false, Ordering::SeqCst);
        proxy.set_rate(None);
        scene.go_on_with(run(), known, &format!("after {ending:?}"));
        assert!(proxy.count(Carries::First) >= 2);
    }
}

#[test]
fn the_server_is_killed_and_started_again_between_two_runs() {
    let mut scene = Scene::new(12 * MIB);
    let mut client = scene.slowly().options(["--retries", "0"]).start();
    scene.until_recorded(&mut client, 20);
    let port = scene.server.addr.port();
    scene.server.kill();
    client.finish_within(PATIENCE).assert_failure(4);
    scene.assert_kept();
    let known = scene.recorded();
    assert!(known >= 20);
    // The old one is waited for when the new one takes its place; its port is free already.
    scene.server = PROGRAMS.serve(&scene.workspace.root()).ready_on(port);
    scene.go_on(known, "with a new server");
}

/// All blocks are there and only the end is missing: next to nothing is fetched.
#[test]
fn interrupted_right_before_the_end() {
    let scene = Scene::new(4 * MIB);
    let n_blocks = scene.size() / scene.block;
    let late = scene.size() - scene.block / 2;
    let broken = Arc::new(AtomicBool::new(true));
    let plan = Arc::clone(&broken);
    let proxy = Proxy::on_streams(scene.server.addr, move |_| {
        let fate = Fate::fine();
        if plan.load(Ordering::SeqCst) { fate.flips_in_file(late) } else { fate }
    });
    let run = || {
        let run = PROGRAMS.fetch(proxy.addr, STREAMS, "f", scene.output());
        run.options(["--json", "--protocol", "2"])
    };
    run().run().assert_failure(6);
    let known = scene.recorded();
    assert!(known >= n_blocks - u64::from(STREAMS), "{known} of {n_blocks}");
    broken.store(false, Ordering::SeqCst);
    let finished = scene.go_on_with(run(), known, "all but one block");
    assert!(number(&finished, "received") <= scene.in_flight(), "{finished}");
}

/// A second interrupt ends at once, and what is left is gone on with all the same.
#[test]
fn two_interrupts() {
    let scene = Scene::new(12 * MIB);
    let mut client = scene.slowly().start();
    scene.until_recorded(&mut client, 20);
    client.signal(Signal::INT);
    client.signal(Signal::INT);
    let outcome = client.finish_within(Duration::from_secs(5));
    outcome.assert_failure(130);
    scene.go_on(scene.recorded(), "after two interrupts");
}
