//! Disks that are full, or fill up during the transfer, and have room again for the next run.

use std::fs::{self, File};
use std::io::Write;

use dt_testkit::disk::SmallDisk;
use dt_testkit::events::{Events, number};
use dt_testkit::fetched::assert_fetched;
use dt_testkit::journal::Journal;
use dt_testkit::process::{Outcome, Process};
use dt_testkit::wait::{PATIENCE, until_true};
use dt_testkit::workspace::files_in;
use rustix::process::Signal;

use crate::{ENGINES, MIB, PROGRAMS, STREAMS, Scene};

fn recorded(disk: &SmallDisk) -> u64 {
    Journal::read(&disk.file("out.dtjournal")).map_or(0, |journal| journal.blocks())
}

/// Takes what is left of the disk.
fn fill(disk: &SmallDisk) {
    let mut other = File::create(disk.file("other")).expect("another file is made");
    while other.write_all(&[1; 4096]).is_ok() {}
}

fn free(disk: &SmallDisk) {
    fs::remove_file(disk.file("other")).expect("it is ours");
}

fn started(scene: &Scene, disk: &SmallDisk, engine: &str) -> Process {
    let run = PROGRAMS.fetch(scene.server.addr, STREAMS, "f", disk.file("out"));
    let mut client = run.options(["--json", "--limit-rate", "8M", "--engine", engine]).start();
    until_true("recorded blocks", || {
        assert!(!client.has_ended(), "the client has ended: {}", client.stderr());
        recorded(disk) >= 20
    });
    client
}

/// Runs it to its end, which must be right, and makes room.
#[track_caller]
fn resume(scene: &Scene, disk: &SmallDisk, engine: &str, known: u64) {
    let run = PROGRAMS.fetch(scene.server.addr, STREAMS, "f", disk.file("out"));
    let outcome = run.options(["--json", "--engine", engine]).run();
    let finished = assert_fetched(&outcome, &disk.file("out"), &scene.content, engine);
    let resumed = number(&finished, "resumed");
    assert!(resumed >= known * scene.block, "{engine}: {known} blocks were known: {finished}");
    assert_eq!(files_in(disk.path()), ["out"], "{engine}");
    fs::remove_file(disk.file("out")).expect("it is ours");
}

/// Whether a run completed on a full disk, because it had reserved all its space before; else the full disk must be the
/// reason of its failure. What it has delivered makes room for the next.
#[track_caller]
fn had_reserved_all(scene: &Scene, disk: &SmallDisk, engine: &str, outcome: &Outcome) -> bool {
    if outcome.code != Some(0) {
        outcome.assert_failure(7);
        return false;
    }
    assert_fetched(outcome, &disk.file("out"), &scene.content, engine);
    fs::remove_file(disk.file("out")).expect("it is ours");
    free(disk);
    true
}

#[test]
fn too_small_disk_is_reported_at_once() {
    let Some(disk) = SmallDisk::mount() else { return };
    let scene = Scene::new(20 * MIB);
    for engine in ENGINES {
        let run = PROGRAMS.fetch(scene.server.addr, STREAMS, "f", disk.file("out"));
        let outcome = run.options(["--json", "--engine", engine]).run();
        outcome.assert_failure(7);
        assert_eq!(Events::of(&outcome).only("failed", &["exit"])["exit"], 7);
        // Nothing is saved, and the space is given back.
        assert_eq!(files_in(disk.path()), [""; 0], "{engine}");
    }
}

#[test]
fn disk_that_fills_up_saves_the_transfer() {
    let Some(disk) = SmallDisk::mount() else { return };
    let scene = Scene::new(8 * MIB);
    for engine in ENGINES {
        let client = started(&scene, &disk, engine);
        fill(&disk);
        let outcome = client.finish_within(PATIENCE);
        if had_reserved_all(&scene, &disk, engine, &outcome) {
            continue;
        }
        let known = recorded(&disk);
        assert!(known >= 20, "{engine}: {known} blocks saved");
        free(&disk);
        resume(&scene, &disk, engine, known);
    }
}

#[test]
fn full_disk_does_not_lose_a_resumed_transfer() {
    let Some(disk) = SmallDisk::mount() else { return };
    let scene = Scene::new(8 * MIB);
    for engine in ENGINES {
        let client = started(&scene, &disk, engine);
        client.signal(Signal::INT);
        client.finish_within(PATIENCE).assert_failure(130);
        let known = recorded(&disk);
        fill(&disk);
        let run = PROGRAMS.fetch(scene.server.addr, STREAMS, "f", disk.file("out"));
        let outcome = run.options(["--json", "--engine", engine]).run();
        if had_reserved_all(&scene, &disk, engine, &outcome) {
            continue;
        }
        assert!(recorded(&disk) >= known, "{engine}: {known} blocks were known, now {}", recorded(&disk));
        free(&disk);
        resume(&scene, &disk, engine, known);
    }
}
