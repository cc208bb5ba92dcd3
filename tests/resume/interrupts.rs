//! Ctrl-C and every other end that leaves something to resume, and the next run of the same command.

use std::fs;
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dt_testkit::content::pattern;
use dt_testkit::events::{Events, number};
use dt_testkit::messages::{RESUMING, SAVED, TO_RESUME};
use dt_testkit::pipe::Pipe;
use dt_testkit::proxy::{Carries, Ending, Fate, Proxy};
use dt_testkit::range_server::{Lie, RangeServer};
use dt_testkit::wait::{PATIENCE, until_true};
use dt_testkit::workspace::Workspace;
use rustix::process::Signal;

use crate::{ENGINES, MIB, PROGRAMS, STREAMS, Scene};

#[test]
fn interrupted_transfer_resumes() {
    let scene = Scene::new(12 * MIB + 5);
    for engine in ENGINES {
        for signal in [Signal::INT, Signal::TERM] {
            let what = format!("{signal:?}, {engine}");
            fs::write(scene.output(), "before").expect("it is written");
            let mut client = scene.slowly().options(["--engine", engine]).start();
            scene.until_recorded(&mut client, 20);
            client.signal(signal);
            let outcome = client.finish_within(PATIENCE);
            outcome.assert_failure(128 + signal.as_raw());
            assert_eq!(fs::read(scene.output()).expect("it is there"), b"before", "{what}");
            fs::remove_file(scene.output()).expect("it is ours");
            scene.assert_saved();
            scene.resume_with(scene.fetch().options(["--engine", engine]), scene.recorded(), &what);
        }
    }
}

/// The last line has the command with the options of this run.
#[test]
fn resume_command_is_printed() {
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

/// The printed command resumes, also if this run was started with --no-resume.
#[test]
fn printed_command_resumes_after_no_resume() {
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
        let (_, command) = outcome.stderr.trim_end().split_once(TO_RESUME).expect("the command is printed");
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).envs(variable.map(|value| ("DT_NO_RESUME", value)));
        let again = shell.output().expect("there is a shell");
        let said = String::from_utf8_lossy(&again.stderr);
        assert!(said.contains(RESUMING), "{what}: it started over: {command}: {said}");
        assert!(fs::read(scene.output()).expect("it is there") == scene.content, "{what}");
        fs::remove_file(scene.output()).expect("it is ours");
    }
}

/// Repeated until the file is complete: only what was in flight is fetched twice.
#[test]
fn many_interrupts_never_lose_a_block() {
    let scene = Scene::new(12 * MIB);
    let mut known = 0;
    for round in 0..5 {
        let before = known;
        known = scene.interrupted_after(before + 20, scene.slowly());
        assert!(known >= before + 20, "round {round}: {known} after {before}");
    }
    scene.resume(known, "after five interrupts");
}

#[test]
fn interrupt_before_the_first_block_leaves_nothing() {
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

/// A file of one block has no journal, so nothing of it is saved.
#[test]
fn discarded_bytes_are_not_reported_as_saved() {
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, 1000);
    let server = PROGRAMS.serve(&workspace.root()).ready();
    let wrong = format!("blake3={}", "0".repeat(64));
    let run = PROGRAMS.fetch(server.addr, 4, "f", workspace.output("out"));
    let outcome = run.options(["--json", "--checksum", &wrong]).run();
    outcome.assert_failure(6);
    workspace.assert_outputs(&[]);
    assert!(!outcome.error().contains(SAVED), "{outcome}");
    assert_eq!(Events::of(&outcome).count("notice"), 0, "{outcome}");
}

/// Nor are the bytes of an earlier run reported as lost.
#[test]
fn saved_bytes_are_not_reported_as_lost() {
    let scene = Scene::new(12 * MIB);
    let known = scene.interrupted();
    let mute = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let addr = mute.local_addr().expect("it has an address");
    let client = PROGRAMS.fetch(addr, STREAMS, "f", scene.output()).start();
    let waiting = mute.accept().expect("the client connects");
    client.signal(Signal::INT);
    let outcome = client.finish_within(PATIENCE);
    outcome.assert_failure(130);
    drop(waiting);
    assert!(!outcome.error().contains(SAVED), "{outcome}");
    scene.assert_saved();
    scene.resume(known, "after one that has not begun");
}

#[test]
fn pipe_leaves_no_files() {
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

/// Every failure during the transfer saves the verified blocks, through a proxy that does no damage in the second run.
#[test]
fn failures_save_verified_blocks() {
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
        scene.assert_saved();
        let known = scene.recorded();
        assert!(known >= 40, "{ending:?}: {known} blocks saved: {outcome}");
        broken.store(false, Ordering::SeqCst);
        proxy.set_rate(None);
        scene.resume_with(run(), known, &format!("after {ending:?}"));
        assert!(proxy.count(Carries::First) >= 2);
    }
}

#[test]
fn server_restart_between_two_runs() {
    let mut scene = Scene::new(12 * MIB);
    let mut client = scene.slowly().options(["--retries", "0"]).start();
    scene.until_recorded(&mut client, 20);
    let port = scene.server.addr.port();
    scene.server.kill();
    client.finish_within(PATIENCE).assert_failure(4);
    scene.assert_saved();
    let known = scene.recorded();
    assert!(known >= 20);
    // The old one is waited for when the new one takes its place; its port is free already.
    scene.server = PROGRAMS.serve(&scene.workspace.root()).ready_on(port);
    scene.resume(known, "with a new server");
}

/// All blocks are there and only the end is missing: next to nothing is fetched.
#[test]
fn interrupt_before_the_last_block() {
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
    let finished = scene.resume_with(run(), known, "all but one block");
    assert!(number(&finished, "received") <= scene.in_flight(), "{finished}");
}

/// A second interrupt ends at once, and the transfer resumes all the same.
#[test]
fn second_interrupt_ends_at_once() {
    let scene = Scene::new(12 * MIB);
    let mut client = scene.slowly().start();
    scene.until_recorded(&mut client, 20);
    client.signal(Signal::INT);
    client.signal(Signal::INT);
    let outcome = client.finish_within(Duration::from_secs(5));
    outcome.assert_failure(130);
    scene.resume(scene.recorded(), "after two interrupts");
}
