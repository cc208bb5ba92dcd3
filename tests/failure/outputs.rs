//! Outputs that cannot take the bytes: full disks, full devices, and places where no file can be made.

use std::fs::{self, File};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;

use dt_testkit::disk::{SMALL_DISK, SmallDisk};
use dt_testkit::original_server::{Fault, OriginalServer, Script, Streams};
use dt_testkit::wait::{PATIENCE, until_true};
use dt_testkit::workspace::{Workspace, files_in};

use crate::{BEFORE, ENGINES, MIB, PROGRAMS};

const SMALL_DISK_BYTES: u64 = 10 << 20;

/// Fetches more than fits, and fails unless the disk's other files survive and its space is given back.
fn check_full_disk(what: &str, addr: SocketAddr, disk: &SmallDisk, options: &[&str]) {
    for engine in ["auto", "map", "write"] {
        fs::write(disk.file("out"), BEFORE).expect("it is written");
        let run =
            PROGRAMS.fetch(addr, 8, "f", disk.file("out")).options(["--engine", engine]).options(options);
        let outcome = run.run();
        assert_eq!(outcome.code, Some(7), "{what}, {engine}: {outcome}");
        outcome.assert_failure(7);
        assert_eq!(files_in(disk.path()), ["out"], "{what}, {engine}");
        assert_eq!(fs::read(disk.file("out")).expect("it is there"), BEFORE, "{what}, {engine}");
    }
}

#[test]
fn full_disk_is_reported() {
    let Some(disk) = SmallDisk::mount() else { return };
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, 2 * SMALL_DISK);
    // The size is known before the first byte.
    let server = PROGRAMS.serve(&workspace.root()).ready();
    check_full_disk("the size is known", server.addr, &disk, &[]);
    // The size is known after the last byte.
    let original = OriginalServer::start(&workspace.root().join("f"), Script::swift());
    check_full_disk("the size is unknown", original.addr, &disk, &[]);
    // With a file that fits, the same disk works.
    workspace.serve_pattern("f", 2, SMALL_DISK / 2);
    PROGRAMS.fetch(server.addr, 8, "f", disk.file("out")).run().assert_success();
    assert_eq!(fs::metadata(disk.file("out")).expect("it is there").len(), SMALL_DISK_BYTES / 2);
}

#[test]
fn disk_that_fills_up_is_reported() {
    let Some(disk) = SmallDisk::mount() else { return };
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, SMALL_DISK / 2);
    for engine in ENGINES {
        let path = workspace.root().join("f");
        let original =
            OriginalServer::start(&path, Script::with_fault(Streams::Every, Fault::HoldsAfter(10)));
        let run = PROGRAMS.fetch(original.addr, 4, "f", disk.file("out")).options(["--engine", engine]);
        let client = run.start();
        until_true("all streams are open", || original.ids().len() == 4);
        // The other file takes what is left, whatever the client has reserved by now.
        let mut other = File::create(disk.file("other")).expect("another file is made");
        while other.write_all(&[1; 4096]).is_ok() {}
        let free = SMALL_DISK_BYTES - other.metadata().expect("its length is known").len();
        original.release();
        let outcome = client.finish_within(PATIENCE);
        // A client that had reserved the space is not disturbed.
        if outcome.code == Some(0) {
            assert!(free >= SMALL_DISK_BYTES / 2, "{engine}: there was no room for the bytes: {outcome}");
            fs::remove_file(disk.file("out")).expect("it is there");
        } else {
            outcome.assert_failure(7);
        }
        assert_eq!(files_in(disk.path()), ["other"], "{engine}");
        fs::remove_file(disk.file("other")).expect("it is ours");
    }
}

/// More space does not help where files may not be that large.
#[test]
fn file_larger_than_allowed_is_reported() {
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, 3 * MIB);
    let server = PROGRAMS.serve(&workspace.root()).ready();
    for engine in ENGINES {
        let run = PROGRAMS.fetch(server.addr, 4, "f", workspace.output("out")).options(["--engine", engine]);
        let outcome = run.with_largest_file(MIB).run();
        outcome.assert_failure(7);
        assert!(
            outcome.error().contains("would exceed the file size limit: 3145728 bytes needed"),
            "{outcome}"
        );
        assert!(outcome.error().contains("ulimit -f") && !outcome.error().contains("space"), "{outcome}");
        workspace.assert_outputs(&[]);
    }
}

#[test]
fn full_device_is_reported() {
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, MIB);
    let server = PROGRAMS.serve(&workspace.root()).ready();
    PROGRAMS.fetch(server.addr, 4, "f", "/dev/full").run().assert_failure(7);
    assert!(!fs::metadata("/dev/full").expect("it is still there").is_file());
}

/// The bytes written so far say nothing about the space that is needed, so no number is printed.
#[test]
fn full_disk_under_standard_output_is_reported() {
    let Some(disk) = SmallDisk::mount() else { return };
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, 2 * SMALL_DISK);
    let server = PROGRAMS.serve(&workspace.root()).ready();
    for protocol in ["1", "2"] {
        let run = PROGRAMS.fetch(server.addr, 4, "f", "-").options(["--protocol", protocol]);
        let outcome = run.stdout_into(&disk.file("out")).run();
        outcome.assert_failure(7);
        assert!(outcome.error().contains("no space left for the output; free"), "{outcome}");
        fs::remove_file(disk.file("out")).expect("it is ours");
    }
}

#[test]
fn unwritable_output_is_reported() {
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, 1000);
    let server = PROGRAMS.serve(&workspace.root()).ready();
    fs::create_dir(workspace.output("folder")).expect("a folder is made");
    fs::create_dir(workspace.output("closed")).expect("a folder is made");
    fs::set_permissions(workspace.output("closed"), fs::Permissions::from_mode(0o555)).expect("closed");
    fs::write(workspace.output("file"), BEFORE).expect("it is written");
    for (what, output) in [
        ("a folder", "folder"),
        ("a folder, with a slash", "folder/"),
        ("no such folder", "missing/out"),
        ("below a file", "file/out"),
        ("in a closed folder", "closed/out"),
        ("a name with a slash after it", "new/"),
    ] {
        let outcome = PROGRAMS.fetch(server.addr, 4, "f", workspace.output(output)).unprivileged().run();
        assert_eq!(outcome.code, Some(8), "{what}: {outcome}");
        outcome.assert_failure(8);
    }
    let long = workspace.output(&"n".repeat(300));
    PROGRAMS.fetch(server.addr, 4, "f", long).run().assert_failure(8);
    workspace.assert_outputs(&["closed", "file", "folder"]);
    assert_eq!(files_in(&workspace.output("folder")), [""; 0]);
    assert_eq!(files_in(&workspace.output("closed")), [""; 0]);
}
