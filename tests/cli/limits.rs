//! Few descriptors and few threads: the programs carry on with what they may have, and say so.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use dt_testkit::process::Outcome;
use dt_testkit::programs::Run;
use dt_testkit::wait::until_true;
use dt_testkit::workspace::Workspace;

use crate::{MIB, PROGRAMS};

/// Runs a program under a limit of the shell.
fn limited(run: Run, limit: &str) -> Run {
    run.under(["bash", "-c", &format!("ulimit {limit}; exec \"$0\" \"$@\"")])
}

fn check_fetched(outcome: &Outcome, workspace: &Workspace, content: &[u8]) {
    outcome.assert_success();
    assert!(fs::read(workspace.output("out")).expect("it is there") == content, "{outcome}");
    fs::remove_file(workspace.output("out")).expect("it is there");
}

#[test]
fn client_uses_as_many_streams_as_it_may_open() {
    let workspace = Workspace::new();
    let content = workspace.serve_pattern("f", 1, 20 * MIB);
    let server = PROGRAMS.serve(&workspace.root()).ready();
    for files in ["32", "40", "64"] {
        for protocol in ["1", "2"] {
            let run = PROGRAMS.fetch(server.addr, 255, "f", workspace.output("out"));
            let run = limited(
                run.options(["--protocol", protocol, "--limit-rate", "100M"]),
                &format!("-n {files}"),
            );
            let outcome = run.run();
            check_fetched(&outcome, &workspace, &content);
            assert!(
                outcome.stderr.contains(" of 255 streams: no more files"),
                "{files} {protocol}: {outcome}"
            );
            assert!(!outcome.stderr.contains("retries"), "{files} {protocol}: {outcome}");
        }
    }
    limited(PROGRAMS.fetch(server.addr, 8, "f", workspace.output("out")), "-n 20").run().assert_failure(1);
}

#[test]
fn server_carries_on_with_few_descriptors() {
    let workspace = Workspace::new();
    let content = workspace.serve_pattern("f", 1, 20 * MIB);
    for files in ["40", "64"] {
        let server = limited(PROGRAMS.serve(&workspace.root()), &format!("-n {files}")).ready();
        let outcome = PROGRAMS.fetch(server.addr, 255, "f", workspace.output("out")).run();
        check_fetched(&outcome, &workspace, &content);
        until_true("a notice", || server.process().stderr().contains("no more files may be open"));
    }
}

/// A user whose threads are those of one test.
const LIMITED_USER: u32 = 64_999;

/// Root has no such limit, so the programs run as another user.
#[test]
fn programs_carry_on_with_few_threads() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can become another user");
        return;
    }
    let workspace = Workspace::new();
    let content = workspace.serve_pattern("f", 1, 20 * MIB);
    for folder in [workspace.path().to_owned(), workspace.outputs(), workspace.root()] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).expect("it is ours");
    }
    fs::set_permissions(workspace.root().join("f"), fs::Permissions::from_mode(0o644)).expect("it is ours");
    let server = PROGRAMS.serve(&workspace.root()).ready();
    let fetch = |threads: u32| {
        let run = PROGRAMS.fetch(server.addr, 255, "f", workspace.output("out"));
        limited(run, &format!("-u {threads}")).as_user(LIMITED_USER).run()
    };
    for threads in 1..3 {
        let outcome = fetch(threads);
        outcome.assert_failure(1);
        assert!(outcome.error().contains("cannot start threads"), "{threads}: {outcome}");
    }
    for threads in [3, 4, 6] {
        check_fetched(&fetch(threads), &workspace, &content);
    }
}
