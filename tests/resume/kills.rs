//! kill -9 of the client at random moments: whatever is left, the next run completes the file, and fetches again at most
//! what was in flight.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use dt_testkit::content::pattern;
use dt_testkit::events::{Events, number};
use dt_testkit::process::Outcome;
use dt_testkit::programs::Run;
use dt_testkit::wait::PATIENCE;
use rustix::process::Signal;

use crate::{ENGINES, MIB, Scene};

/// The same random moments in every run, below `limit`.
fn moments(seed: u64, rounds: usize, limit: Duration) -> Vec<Duration> {
    let bytes = pattern(seed, rounds * 8);
    let fraction = |bytes: &[u8]| {
        f64::from(u32::from_le_bytes(bytes[..4].try_into().expect("four bytes"))) / f64::from(u32::MAX)
    };
    bytes.chunks_exact(8).map(|bytes| limit.mul_f64(fraction(bytes))).collect()
}

/// Kills a client after that time; `None` when it was done before.
fn killed(run: Run, after: Duration) -> Option<Outcome> {
    let begin = Instant::now();
    let client = run.start();
    sleep(after.saturating_sub(begin.elapsed()));
    client.signal(Signal::KILL);
    let outcome = client.finish_within(PATIENCE);
    (outcome.signal == Some(9)).then_some(outcome)
}

/// What was reported as verified is recorded, except for the blocks in flight.
#[track_caller]
fn assert_little_is_lost(scene: &Scene, outcome: &Outcome, what: &str) {
    let events = Events::so_far(&outcome.stdout);
    let said = events.last("progress").map_or(0, |progress| number(progress, "verified"));
    let known = scene.recorded() * scene.block;
    assert!(known + scene.in_flight() >= said, "{what}: {said} bytes were verified, {known} are known");
    if let Some(journal) = scene.journal() {
        journal.header();
        assert_eq!(journal.tail, 0, "{what}: a record is written at once");
    }
}

/// 30 transfers, each killed once.
#[test]
fn killed_client_resumes() {
    let scene = Scene::new(12 * MIB);
    let mut in_the_middle = 0;
    for (round, after) in moments(11, 30, Duration::from_millis(900)).into_iter().enumerate() {
        let engine = ENGINES[round % 2];
        let what = format!("round {round}, killed after {after:?}, {engine}");
        let outcome = killed(scene.slowly().options(["--engine", engine]), after);
        let known = scene.recorded();
        if let Some(outcome) = &outcome {
            assert!(!scene.output().exists(), "{what}: published too early");
            assert_little_is_lost(&scene, outcome, &what);
            in_the_middle += usize::from(known > 0);
        } else {
            assert!(fs::read(scene.output()).expect("it is there") == scene.content, "{what}");
        }
        scene.resume(if outcome.is_some() { known } else { 0 }, &what);
    }
    assert!(in_the_middle >= 15, "only {in_the_middle} of 30 were caught in the middle");
}

/// One transfer killed until it is done; each run knows at least what the one before did.
#[test]
fn client_killed_many_times_resumes() {
    let scene = Scene::new(24 * MIB);
    let mut known = 0;
    for (round, after) in moments(12, 8, Duration::from_millis(400)).into_iter().enumerate() {
        let what = format!("round {round}, killed after {after:?}");
        let Some(outcome) = killed(scene.slowly().options(["--engine", ENGINES[round % 2]]), after) else {
            panic!("{what}: it cannot be done");
        };
        // A kill before the old journal was read must not lose it.
        assert!(scene.recorded() >= known, "{what}: {} blocks known after {known}", scene.recorded());
        known = scene.recorded();
        assert_little_is_lost(&scene, &outcome, &what);
    }
    scene.resume(known, "in the end");
}

/// At full speed, so that the moments lie around the beginning, the end and the rename.
#[test]
fn client_killed_at_full_speed_resumes() {
    let scene = Scene::new(12 * MIB);
    let begin = Instant::now();
    scene.start_over("undisturbed");
    let usual = begin.elapsed();
    for (round, after) in moments(13, 20, usual).into_iter().enumerate() {
        let what = format!("round {round}, killed after {after:?} of {usual:?}");
        fs::write(scene.output(), "before").expect("it is written");
        let outcome = killed(scene.fetch().options(["--engine", ENGINES[round % 2]]), after);
        let published = fs::read(scene.output()).expect("it is there");
        assert!(published == b"before" || published == scene.content, "{what}: neither old nor new");
        let known = if outcome.is_some() && scene.part().exists() { scene.recorded() } else { 0 };
        scene.resume(known, &what);
    }
}

/// A kill while a killed transfer is being resumed.
#[test]
fn client_killed_with_one_stream_resumes() {
    let scene = Scene::new(6 * MIB);
    let run = || {
        let run = crate::PROGRAMS.fetch(scene.server.addr, 1, "f", scene.output());
        run.options(["--json", "--limit-rate", "6M"])
    };
    for (round, after) in moments(14, 5, Duration::from_millis(800)).into_iter().enumerate() {
        killed(run(), after);
        let known = if scene.part().exists() { scene.recorded() } else { 0 };
        scene.resume(known, &format!("one stream, round {round}, after {after:?}"));
    }
}
