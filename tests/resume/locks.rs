//! File systems without locks, and those that grant a lock to everyone: that costs speed, not bytes.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use dt_testkit::fetched::assert_fetched;
use dt_testkit::programs::Run;
use dt_testkit::wait::{PATIENCE, until_true};

use crate::{MIB, PROGRAMS, STREAMS, Scene};

/// Whether `strace` can inject the results of calls here; otherwise the reason is on standard error.
fn can_inject() -> bool {
    let run = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    let can = run.is_ok_and(|status| status.success());
    if !can {
        eprintln!("SKIPPED: strace cannot trace here");
    }
    can
}

/// Runs it where every `flock` has this result, without locking anything.
fn with_flock(result: &str, run: Run) -> Run {
    let inject = format!("inject=flock:{result}");
    run.under(["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=flock", "-e", &inject])
}

fn fetch(scene: &Scene, name: &str, options: &[&str]) -> Run {
    let run = PROGRAMS.fetch(scene.server.addr, STREAMS, name, scene.output());
    with_flock("retval=0", run.options(["--json"]).options(options))
}

/// Two remote files, one output: the second client starts over, and the first one writes nothing into what that publishes.
#[test]
fn transfer_that_loses_its_part_file_changes_no_byte_of_the_next() {
    if !can_inject() {
        return;
    }
    let scene = Scene::new(24 * MIB);
    let other = scene.workspace.serve_pattern("g", 9, 6 * MIB);
    let short = scene.workspace.serve_pattern("short", 5, 1000);
    for (protocol, second, content) in
        [("2", "g", &other), ("2", "short", &short), ("1", "g", &other), ("1", "short", &short)]
    {
        let what = format!("protocol {protocol}, then {second}");
        let mut first = fetch(&scene, "f", &["--protocol", protocol, "--limit-rate", "6M"]).start();
        if protocol == "2" {
            scene.until_recorded(&mut first, 10);
        } else {
            until_true("its part file", || fs::metadata(scene.part()).is_ok_and(|part| part.len() > 0));
        }
        let outcome = fetch(&scene, second, &[]).run();
        assert_fetched(&outcome, &scene.output(), content, &what);
        let lost = first.finish_within(PATIENCE);
        assert_ne!(lost.code, Some(0), "{what}: {lost}");
        assert!(fs::read(scene.output()).expect("it is there") == *content, "{what}: wrong bytes");
        scene.workspace.assert_outputs(&["out"]);
        fs::remove_file(scene.output()).expect("it is ours");
    }
}

/// Two clients that start at the same moment take the part file from each other; one of them has it in the end.
#[test]
fn one_of_two_transfers_at_the_same_moment_succeeds() {
    if !can_inject() {
        return;
    }
    let scene = Scene::new(20 * MIB);
    let other = scene.workspace.serve_pattern("g", 9, 20 * MIB);
    for round in 0..5 {
        let started = [fetch(&scene, "f", &[]).start(), fetch(&scene, "g", &[]).start()];
        let outcomes = started.map(|client| client.finish_within(PATIENCE));
        let successes = outcomes.iter().filter(|outcome| outcome.code == Some(0)).count();
        // One may also end before the other begins.
        assert!(successes >= 1, "{round}: {outcomes:?}");
        let output = fs::read(scene.output()).expect("it is there");
        assert!(output == scene.content || output == other, "{round}: wrong bytes");
        scene.workspace.assert_outputs(&["out"]);
        fs::remove_file(scene.output()).expect("it is ours");
    }
}

/// The second client keeps the blocks of the first, in a file of its own.
#[test]
fn running_transfer_is_resumed_in_another_file() {
    if !can_inject() {
        return;
    }
    let scene = Scene::new(24 * MIB);
    let mut first = fetch(&scene, "f", &["--limit-rate", "6M"]).start();
    scene.until_recorded(&mut first, 20);
    let held = fs::File::open(scene.part()).expect("it is there");
    let outcome = fetch(&scene, "f", &[]).run();
    scene.assert_resumed(&outcome, 20, "while the first one runs");
    let [held, output] =
        [held.metadata(), fs::metadata(scene.output())].map(|found| found.expect("it is there").ino());
    assert_ne!(held, output, "the first one can still write to the output");
    first.finish_within(PATIENCE).assert_failure(8);
    assert!(fs::read(scene.output()).expect("it is there") == scene.content);
}

#[test]
fn transfer_resumes_where_locks_fail_or_exclude_nobody() {
    if !can_inject() {
        return;
    }
    let scene = Scene::new(6 * MIB);
    for result in ["error=ENOSYS", "error=ENOLCK", "error=EOPNOTSUPP", "retval=0"] {
        let known = scene.interrupted_after(20, with_flock(result, scene.slowly()));
        scene.resume_with(with_flock(result, scene.fetch()), known, result);
    }
}

#[test]
fn missing_locks_are_reported_where_details_are_wanted() {
    if !can_inject() {
        return;
    }
    let scene = Scene::new(MIB);
    let fetch =
        |options: &[&str]| PROGRAMS.fetch(scene.server.addr, STREAMS, "f", scene.output()).options(options);
    let is_reported = |run: Run| {
        let outcome = run.run();
        outcome.assert_success();
        outcome.stderr.contains("has no locks")
    };
    assert!(!is_reported(fetch(&["-v"])));
    for result in ["error=ENOSYS", "error=ENOLCK", "retval=0"] {
        assert!(is_reported(with_flock(result, fetch(&["-v"]))), "{result}");
        assert!(!is_reported(with_flock(result, fetch(&[]))), "{result}");
    }
}
