//! Disks that are full, or fill up during the transfer, and have room again for the next run.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

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

/// A mounted exFAT, which has neither extended attributes nor permissions nor lasting inode numbers.
struct ExfatDisk {
    folder: tempfile::TempDir,
    device: String,
}

impl ExfatDisk {
    /// Makes one on a loop device, or says on standard error why that is not possible here.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder is made");
        let image = folder.path().join("image");
        let file = File::create(&image).expect("it is made");
        file.set_len(64 << 20).expect("it has room");
        fs::create_dir(folder.path().join("disk")).expect("a folder is made");
        let made = run("mkfs.exfat", &[image.as_os_str()]);
        let device =
            made.and_then(|_| run("losetup", &["--show".as_ref(), "-f".as_ref(), image.as_os_str()]));
        let Some(device) = device else {
            eprintln!("SKIPPED: mkfs.exfat and losetup cannot make an exFAT here");
            return None;
        };
        let disk = Self { folder, device };
        if disk.mounted().is_none() {
            eprintln!("SKIPPED: an exFAT cannot be mounted here");
            return None;
        }
        Some(disk)
    }

    fn mounted(&self) -> Option<String> {
        let (device, path) = (self.device.as_ref(), self.path());
        run("mount.exfat-fuse", &[device, path.as_os_str()])
            .or_else(|| run("mount", &["-t".as_ref(), "exfat".as_ref(), device, path.as_os_str()]))
    }

    /// Mounts it again; the files have other inode numbers if they are looked up in another order.
    fn remount(&self) {
        run("umount", &[self.path().as_os_str()]).expect("it is unmounted");
        self.mounted().expect("it is mounted again");
        for name in ["out.dtpart", "out.dtjournal"] {
            fs::metadata(self.file(name)).expect("it is there");
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

impl Drop for ExfatDisk {
    fn drop(&mut self) {
        run("umount", &[self.path().as_os_str()]);
        run("losetup", &["-d".as_ref(), self.device.as_ref()]);
    }
}

/// What a command prints, if it succeeds.
fn run(program: &str, args: &[&std::ffi::OsStr]) -> Option<String> {
    let output = Command::new(program).args(args).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Interrupts a transfer to `output` when blocks are recorded, and returns how many were.
fn interrupted(scene: &Scene, output: &Path) -> u64 {
    let known = || Journal::read(&output.with_extension("dtjournal")).map_or(0, |journal| journal.blocks());
    let run = PROGRAMS.fetch(scene.server.addr, STREAMS, "f", output);
    let client = run.options(["--json", "--limit-rate", "8M"]).start();
    until_true("recorded blocks", || known() >= 20);
    client.signal(Signal::INT);
    client.finish_within(PATIENCE).assert_failure(130);
    known()
}

#[test]
fn transfer_to_exfat_resumes_after_a_remount() {
    let Some(disk) = ExfatDisk::mount() else { return };
    let scene = Scene::new(8 * MIB);
    let output = disk.file("out");
    for options in [["--json"].as_slice(), &["--json", "--no-clobber"], &["--json", "--no-resume"]] {
        let known = interrupted(&scene, &output);
        disk.remount();
        let run = PROGRAMS.fetch(scene.server.addr, STREAMS, "f", &output).options(options);
        let finished = assert_fetched(&run.run(), &output, &scene.content, "exFAT");
        if !options.contains(&"--no-resume") {
            assert!(
                number(&finished, "resumed") >= known * scene.block,
                "{known} blocks were known: {finished}"
            );
        }
        assert_eq!(files_in(&disk.path()), ["out"]);
        fs::remove_file(&output).expect("it is ours");
    }
}

/// A part file without a mark and without a record, whose inode number is another one: nothing recognises it, and it holds nothing.
#[test]
fn client_killed_early_on_exfat_does_not_hinder_the_next() {
    let Some(disk) = ExfatDisk::mount() else { return };
    let scene = Scene::new(8 * MIB);
    let output = disk.file("out");
    for options in [["--json"].as_slice(), &["--json", "--no-clobber"], &["--json", "--no-resume"]] {
        // Too slow for a block.
        let run = PROGRAMS.fetch(scene.server.addr, STREAMS, "f", &output);
        let client = run.options(["--limit-rate", "1k"]).start();
        until_true("its journal", || disk.file("out.dtjournal").exists());
        client.signal(Signal::KILL);
        assert_eq!(client.finish_within(PATIENCE).signal, Some(9));
        assert_eq!(Journal::read(&disk.file("out.dtjournal")).map_or(0, |journal| journal.blocks()), 0);
        disk.remount();
        let run = PROGRAMS.fetch(scene.server.addr, STREAMS, "f", &output).options(options);
        assert_fetched(&run.run(), &output, &scene.content, "exFAT");
        assert_eq!(files_in(&disk.path()), ["out"]);
        fs::remove_file(&output).expect("it is ours");
    }
}

/// Where a folder cannot be synced the output is in place, and after a failure of it no journal is left.
#[test]
fn folder_that_cannot_be_synced_leaves_no_journal() {
    let scene = Scene::new(6 * MIB);
    for (error, code) in [("EINVAL", 0), ("EIO", 8)] {
        let inject = format!("inject=fsync:error={error}");
        let folder = scene.workspace.outputs().display().to_string();
        // Only the calls that are about the folder.
        let words =
            ["strace", "-f", "-qq", "-o", "/dev/null", "-P", &folder, "-e", "trace=fsync", "-e", &inject];
        if run("strace", &["-qq".as_ref(), "-o".as_ref(), "/dev/null".as_ref(), "true".as_ref()]).is_none() {
            eprintln!("SKIPPED: strace cannot trace here");
            return;
        }
        let outcome = scene.fetch().options(["--sync"]).under(words).run();
        assert_eq!(outcome.code, Some(code), "{error}: {outcome}");
        assert!(fs::read(scene.output()).expect("it is there") == scene.content, "{error}");
        assert!(!outcome.to_string().contains("resumable"), "{error}: {outcome}");
        scene.workspace.assert_outputs(&["out"]);
    }
}
