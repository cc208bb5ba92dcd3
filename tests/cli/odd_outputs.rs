//! Outputs that are unusual: mount points, protected files, access control lists, names at their limit.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use dt_testkit::disk::ForeignDisk;
use dt_testkit::process::{Outcome, Process};
use dt_testkit::programs::{Run, Server};
use dt_testkit::wait::{PATIENCE, until_true};
use dt_testkit::workspace::Workspace;
use rustix::process::{Signal, geteuid};

use crate::{BEFORE, MIB, PROGRAMS};

struct Scene {
    workspace: Workspace,
    server: Server,
    content: Vec<u8>,
}

impl Scene {
    fn new() -> Self {
        let workspace = Workspace::new();
        let content = workspace.serve_pattern("f", 1, 3 * MIB);
        let server = PROGRAMS.serve(&workspace.root()).ready();
        Self { workspace, server, content }
    }

    fn fetch(&self, output: &Path) -> Run {
        PROGRAMS.fetch(self.server.addr, 4, "f", output)
    }

    #[track_caller]
    fn check(&self, output: &Path) {
        assert!(fs::read(output).expect("it is there") == self.content);
    }

    /// What cannot be written is found out before anything is requested.
    #[track_caller]
    fn check_refused(&self, outcome: &Outcome, why: &str) {
        outcome.assert_failure(8);
        assert!(outcome.error().contains(why), "{outcome}");
        assert!(!self.server.process().stderr().contains("transfer started"), "{outcome}");
    }
}

/// Runs a tool that changes `path`; `false`, and a message, if it cannot.
fn changed(tool: &str, args: &[&str], path: &Path) -> bool {
    let outcome = Command::new(tool).args(args).arg(path).output();
    let is_done = outcome.as_ref().is_ok_and(|outcome| outcome.status.success());
    if !is_done {
        eprintln!("SKIPPED: {tool} {args:?}: {outcome:?}");
    }
    is_done
}

#[test]
fn mount_point_is_written_in_place() {
    let scene = Scene::new();
    let (output, mounted) = (scene.workspace.output("out"), scene.workspace.path().join("mounted"));
    fs::write(&output, "mount point").expect("it is written");
    fs::write(&mounted, vec![7; 5 * MIB]).expect("it is written");
    let inode = || fs::metadata(&mounted).expect("it is there").ino();
    let before = inode();
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", "mount --bind \"$1\" \"$2\" && shift 2 && exec \"$@\"", "sh"]);
    command.args([&mounted, &output]).arg(PROGRAMS.client).args([&scene.server.addr.to_string(), "4", "f"]);
    command.arg(&output);
    let outcome = Process::start(command, "dtclient", None).finish_within(PATIENCE);
    if outcome.stderr.contains("unshare failed") {
        eprintln!("SKIPPED: a mount namespace needs root: {outcome}");
        return;
    }
    outcome.assert_success();
    assert!(outcome.stderr.contains("written in place"), "{outcome}");
    scene.check(&mounted);
    assert_eq!(inode(), before);
    scene.workspace.assert_outputs(&["out"]);
}

#[test]
fn protected_output_is_found_out_before_the_first_byte() {
    let scene = Scene::new();
    let output = scene.workspace.output("out");
    for (flag, why) in [("i", "immutable"), ("a", "append-only")] {
        fs::write(&output, BEFORE).expect("it is written");
        if !changed("chattr", &[&format!("+{flag}")], &output) {
            continue;
        }
        let outcome = scene.fetch(&output).run();
        assert!(changed("chattr", &[&format!("-{flag}")], &output));
        scene.check_refused(&outcome, why);
        assert_eq!(fs::read(&output).expect("it is there"), BEFORE);
        scene.workspace.assert_outputs(&["out"]);
    }
    let folder = scene.workspace.outputs();
    if changed("chattr", &["+a"], &folder) {
        let outcome = scene.fetch(&scene.workspace.output("new")).run();
        assert!(changed("chattr", &["-a"], &folder));
        scene.check_refused(&outcome, "append-only");
        scene.workspace.assert_outputs(&["out"]);
    }
}

#[test]
fn file_of_another_user_in_a_sticky_directory_is_found_out_before_the_first_byte() {
    if !geteuid().is_root() {
        eprintln!("SKIPPED: only root can become another user");
        return;
    }
    let scene = Scene::new();
    let output = scene.workspace.output("out");
    fs::write(&output, BEFORE).expect("it is written");
    fs::set_permissions(scene.workspace.path(), Permissions::from_mode(0o755)).expect("it is ours");
    fs::set_permissions(scene.workspace.outputs(), Permissions::from_mode(0o1777)).expect("it is ours");
    let outcome = scene.fetch(&output).unprivileged().run();
    scene.check_refused(&outcome, "sticky");
    scene.workspace.assert_outputs(&["out"]);
}

#[test]
fn socket_is_no_output() {
    let scene = Scene::new();
    let output = scene.workspace.output("socket");
    let _socket = std::os::unix::net::UnixListener::bind(&output).expect("it is bound");
    scene.check_refused(&scene.fetch(&output).run(), "it is a socket");
}

/// Who could not read the old file cannot read the new one, and who could still can.
#[test]
fn access_control_lists_are_those_of_the_old_output() {
    let scene = Scene::new();
    let list = |path: &Path| {
        let outcome = Command::new("getfacl").args(["--omit-header", "--numeric"]).arg(path).output();
        String::from_utf8(outcome.expect("getfacl runs").stdout).expect("it is text")
    };
    let (shared, private) = (scene.workspace.output("shared"), scene.workspace.output("private"));
    fs::write(&shared, BEFORE).expect("it is written");
    fs::write(&private, BEFORE).expect("it is written");
    fs::set_permissions(&private, Permissions::from_mode(0o600)).expect("it is ours");
    // What the directory gives to every new file.
    if !changed("setfacl", &["-d", "-m", "u:4711:rw,g:4712:r"], &scene.workspace.outputs())
        || !changed("setfacl", &["-m", "u:815:r,g:816:rw"], &shared)
    {
        return;
    }
    for output in [&shared, &private] {
        let before = list(output);
        let client = scene.fetch(output).options(["--limit-rate", "2M"]).start();
        let part = output.with_extension("dtpart");
        until_true("the part file has data", || fs::metadata(&part).is_ok_and(|part| part.len() > 0));
        assert_eq!(list(&part), before, "while it is received");
        client.finish_within(PATIENCE).assert_success();
        scene.check(output);
        assert_eq!(list(output), before);
    }
    assert!(list(&shared).contains("user:815:r--") && !list(&private).contains("4711"));
}

#[test]
fn umask_that_forbids_everything_does_not_keep_a_transfer_from_resuming() {
    let scene = Scene::new();
    fs::set_permissions(scene.workspace.path(), Permissions::from_mode(0o755)).expect("it is ours");
    fs::set_permissions(scene.workspace.outputs(), Permissions::from_mode(0o777)).expect("it is ours");
    let output = scene.workspace.output("out");
    let fetch = || {
        let run = scene.fetch(&output).options(["--limit-rate", "2M"]);
        run.under(["sh", "-c", "umask 0277; exec \"$0\" \"$@\""]).unprivileged()
    };
    for signal in [Signal::KILL, Signal::INT] {
        let client = fetch().start();
        let journal = output.with_extension("dtjournal");
        until_true("blocks are saved", || fs::metadata(&journal).is_ok_and(|journal| journal.len() > 400));
        client.signal(signal);
        client.finish_within(PATIENCE);
        let outcome = fetch().run();
        outcome.assert_success();
        assert!(outcome.stderr.contains("resuming"), "{outcome}");
        scene.check(&output);
        assert_eq!(fs::metadata(&output).expect("it is there").permissions().mode() & 0o777, 0o400);
        fs::remove_file(&output).expect("it is ours");
    }
}

/// Names of 255 bytes, whose sidecar files have shortened names that are text as well: NTFS takes nothing else.
#[test]
fn long_names_are_shortened_between_characters() {
    let Some(disk) = ForeignDisk::ntfs() else { return };
    let scene = Scene::new();
    for name in ["日".repeat(85), format!("x{}", "é".repeat(127)), "y".repeat(255)] {
        let output = disk.path().join(&name);
        let client = scene.fetch(&output).options(["--limit-rate", "2M"]).start();
        let is_saved = |name: &std::ffi::OsStr| name.to_string_lossy().ends_with(".dtjournal");
        until_true("a journal", || {
            fs::read_dir(disk.path())
                .is_ok_and(|mut all| all.any(|file| is_saved(&file.expect("an entry").file_name())))
        });
        client.signal(Signal::KILL);
        client.finish_within(PATIENCE);
        scene.fetch(&output).run().assert_success();
        scene.check(&output);
        let left: Vec<_> =
            fs::read_dir(disk.path()).expect("it is read").flatten().map(|file| file.file_name()).collect();
        assert_eq!(left, [name.as_str()]);
        fs::remove_file(&output).expect("it is ours");
    }
}
