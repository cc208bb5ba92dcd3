//! The output file: where it appears, with which mode, and who wins when several want the same name.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use dt_testkit::messages::{RESUMING, SAVED, TO_RESUME};
use dt_testkit::original_client::Ask;
use dt_testkit::original_server::{Fault, Script, Streams};
use dt_testkit::process::{Outcome, Process};
use dt_testkit::wait::{PATIENCE, until, until_true};
use dt_testkit::workspace::{Workspace, files_in};
use rustix::fs::getxattr;
use rustix::process::Signal;

use crate::{BEFORE, MIB, PROGRAMS, original};

#[test]
fn output_gets_the_usual_mode() {
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, MIB);
    let server = PROGRAMS.serve(&workspace.root()).ready();
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o7777;
    // Made by this process, under the umask that the client inherits.
    File::create(workspace.output("other")).expect("it is made");
    for engine in ["map", "write"] {
        let run = PROGRAMS.fetch(server.addr, 4, "f", workspace.output(engine)).options(["--engine", engine]);
        run.run().assert_success();
        assert_eq!(mode(&workspace.output(engine)), mode(&workspace.output("other")), "{engine}");
    }
}

#[test]
fn output_is_named_after_the_remote_file_where_it_has_no_name() {
    let workspace = Workspace::new();
    fs::create_dir(workspace.root().join("sub")).expect("it is made");
    let content = workspace.serve_pattern("sub/a b", 1, MIB);
    let server = PROGRAMS.serve(&workspace.root()).ready();
    let addr = server.addr.to_string();
    for output in [vec![], vec![".".to_owned()], vec![format!("{}/", workspace.outputs().display())]] {
        let mut command = Command::new(PROGRAMS.client);
        command.args([&addr, "4", "sub/a b"]).args(&output).current_dir(workspace.outputs());
        Process::start(command, "dtclient", None).finish_within(PATIENCE).assert_success();
        assert!(fs::read(workspace.output("a b")).expect("it is there") == content, "{output:?}");
        fs::remove_file(workspace.output("a b")).expect("it is ours");
    }
    workspace.assert_outputs(&[]);
}

#[test]
fn output_gets_time_and_mode_of_the_remote_file() {
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, MIB);
    let source = workspace.root().join("f");
    let modified = std::time::UNIX_EPOCH + std::time::Duration::new(1_234_567_890, 123_456_789);
    File::options().append(true).open(&source).expect("it opens").set_modified(modified).expect("it is set");
    fs::set_permissions(&source, fs::Permissions::from_mode(0o4751)).expect("it is ours");
    let server = PROGRAMS.serve(&workspace.root()).ready();
    File::create(workspace.output("other")).expect("it is made");
    let usual = fs::metadata(workspace.output("other")).expect("it is there").permissions().mode() & 0o7777;
    let cases: [(&[&str], bool, u32); 5] = [
        (&[], true, usual),
        (&["-p"], true, 0o751),
        (&["--no-preserve"], false, usual),
        (&["--protocol", "1"], false, usual),
        (&["-p", "--engine", "map"], true, 0o751),
    ];
    for (options, keeps_time, mode) in cases {
        PROGRAMS.fetch(server.addr, 4, "f", workspace.output("out")).options(options).run().assert_success();
        let found = fs::metadata(workspace.output("out")).expect("it is there");
        assert_eq!(found.modified().expect("it has one") == modified, keeps_time, "{options:?}");
        assert_eq!(found.permissions().mode() & 0o7777, mode, "{options:?}");
        fs::remove_file(workspace.output("out")).expect("it is ours");
    }
}

/// Runs a client with `redirection` of its standard output, as a shell does it.
fn redirected(redirection: &str, args: &[&str]) -> Outcome {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("\"$@\" {redirection}"), "sh", PROGRAMS.client]).args(args);
    Process::start(shell, "dtclient", None).finish_within(PATIENCE)
}

#[test]
fn standard_output_that_loses_bytes_is_an_error() {
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, MIB);
    let server = PROGRAMS.serve(&workspace.root()).ready();
    let (addr, out) = (server.addr.to_string(), workspace.output("out"));
    let fetch = [&addr, "4", "f", "-"];
    let json = ["--json", &addr, "4", "f", out.to_str().expect("it is UTF-8")];
    for (redirection, why) in [(">&-", "closed"), ("> /dev/full", "no space left")] {
        for args in [&fetch[..], &json, &["--help"], &["--version"]] {
            let outcome = redirected(redirection, args);
            assert_eq!(outcome.code, Some(if why == "closed" || args != fetch { 8 } else { 7 }), "{outcome}");
            outcome.assert_one_line("dtclient: ");
            assert!(outcome.stderr.contains(why), "{redirection} {args:?}: {outcome}");
        }
    }
    // The transfer itself has succeeded.
    workspace.assert_outputs(&["out"]);
    redirected("> /dev/null", &fetch).assert_success();
}

#[test]
fn non_blocking_standard_output_gets_every_byte() {
    let workspace = Workspace::new();
    let content = workspace.serve_pattern("f", 1, 5 * MIB);
    let server = PROGRAMS.serve(&workspace.root()).ready();
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    rustix::io::ioctl_fionbio(&writer, true).expect("it is set");
    let mut command = Command::new(PROGRAMS.client);
    command.args(["-q", &server.addr.to_string(), "4", "f", "-"]).stdout(writer);
    let mut client = command.spawn().expect("it starts");
    drop(command);
    // Long enough for the pipe to be full.
    std::thread::sleep(std::time::Duration::from_millis(300));
    let mut received = Vec::new();
    std::io::Read::read_to_end(&mut reader, &mut received).expect("it is read");
    assert!(client.wait().expect("it ends").success());
    assert!(received == content);
}

#[test]
fn output_without_a_folder_goes_into_the_current_one() {
    let workspace = Workspace::new();
    let content = workspace.serve_pattern("f", 1, MIB);
    let server = PROGRAMS.serve(&workspace.root()).ready();
    let mut command = Command::new(PROGRAMS.client);
    command.args([&server.addr.to_string(), "4", "f", "out"]).current_dir(workspace.outputs());
    Process::start(command, "dtclient", None).finish_within(PATIENCE).assert_success();
    assert!(fs::read(workspace.output("out")).expect("it is there") == content);
    // And what the server serves by default is its current folder.
    let mut command = Command::new(PROGRAMS.server);
    command.args(["--bind", "127.0.0.1", "0"]).current_dir(workspace.root());
    let server = Process::start(command, "dtserver", None);
    let line = until("the ready line", || server.stdout().ends_with(b"\n").then(|| server.stdout()));
    let line = String::from_utf8(line).expect("it is UTF-8");
    let addr = line.strip_prefix("listening on ").and_then(|rest| rest.split(", ").next()?.parse().ok());
    assert!(Ask::new(addr.expect("an address"), "f", 4).offer().download() == content);
}

#[test]
fn one_of_many_clients_creates_the_output() {
    let workspace = Workspace::new();
    let contents: Vec<_> =
        (0..8).map(|seed| workspace.serve_pattern(&format!("f{seed}"), seed, MIB)).collect();
    let server = PROGRAMS.serve(&workspace.root()).ready();
    for round in 0..5 {
        let name = format!("out{round}");
        let clients: Vec<_> = (0..8)
            .map(|n| {
                let run = PROGRAMS.fetch(server.addr, 2, format!("f{n}"), workspace.output(&name));
                run.options(["--no-clobber"]).start()
            })
            .collect();
        let outcomes: Vec<Outcome> =
            clients.into_iter().map(|client| client.finish_within(PATIENCE)).collect();
        let codes: Vec<_> = outcomes.iter().map(|outcome| outcome.code).collect();
        let winners: Vec<usize> = (0..8).filter(|n| codes[*n] == Some(0)).collect();
        let [winner] = winners[..] else { panic!("one winner expected: {codes:?}") };
        assert!(outcomes.iter().enumerate().all(|(n, o)| n == winner || o.code == Some(13)), "{codes:?}");
        assert!(fs::read(workspace.output(&name)).expect("it is there") == contents[winner]);
    }
    workspace.assert_outputs(&["out0", "out1", "out2", "out3", "out4"]);
}

#[test]
fn output_that_appears_during_the_transfer_is_kept() {
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, MIB);
    let server = original(&workspace, Script::with_fault(Streams::Only(1), Fault::HoldsAfter(10)));
    let run = PROGRAMS.fetch(server.addr, 4, "f", workspace.output("out")).options(["--no-clobber"]);
    let client = run.start();
    until_true("all streams are open", || server.ids().len() == 4);
    fs::write(workspace.output("out"), BEFORE).expect("it is written");
    server.release();
    client.finish_within(PATIENCE).assert_failure(13);
    workspace.assert_outputs(&["out"]);
    assert_eq!(fs::read(workspace.output("out")).expect("it is there"), BEFORE);
}

/// The same command would fail the same way, so it is not suggested for resuming.
#[test]
fn no_resume_command_is_printed_if_it_cannot_succeed() {
    let workspace = Workspace::new();
    let content = workspace.serve_pattern("f", 1, 12 * MIB);
    let server = PROGRAMS.serve(&workspace.root()).ready();
    let fetch = || PROGRAMS.fetch(server.addr, 4, "f", workspace.output("out"));
    let check = |outcome: &Outcome, code, advice: &str| {
        outcome.assert_failure(code);
        assert!(outcome.error().contains(advice), "{outcome}");
        assert!(outcome.error().contains(SAVED), "{outcome}");
        assert!(!outcome.error().contains(TO_RESUME), "{outcome}");
        let next = fetch().run();
        next.assert_success();
        assert!(next.stderr.contains(RESUMING), "{next}");
        assert!(fs::read(workspace.output("out")).expect("it is there") == content);
        fs::remove_file(workspace.output("out")).expect("it is ours");
    };
    let wrong = format!("blake3={}", "0".repeat(64));
    check(&fetch().options(["--checksum", &wrong]).run(), 6, "not the file that you expect");
    let client = fetch().options(["--no-clobber", "--limit-rate", "12M"]).start();
    until_true("the journal", || files_in(&workspace.outputs()).contains(&"out.dtjournal".to_owned()));
    fs::write(workspace.output("out"), BEFORE).expect("it is written");
    check(&client.finish_within(PATIENCE), 13, "remove it, or omit --no-clobber");
}

#[test]
fn two_clients_share_one_output() {
    let workspace = Workspace::new();
    let content = workspace.serve_pattern("f", 1, MIB);
    let held = original(&workspace, Script::with_fault(Streams::Only(1), Fault::HoldsAfter(10)));
    let swift = original(&workspace, Script::swift());
    let first = PROGRAMS.fetch(held.addr, 4, "f", workspace.output("out")).start();
    until_true("the first is at it", || held.ids().len() == 4);
    until_true("its part file", || files_in(&workspace.outputs()).len() == 1);
    assert_eq!(files_in(&workspace.outputs()), ["out.dtpart"]);
    let second = PROGRAMS.fetch(swift.addr, 4, "f", workspace.output("out")).run();
    second.assert_failure(13);
    assert!(second.error().contains("out"), "{second}");
    workspace.assert_outputs(&["out.dtpart"]);
    held.release();
    first.finish_within(PATIENCE).assert_success();
    assert!(fs::read(workspace.output("out")).expect("it is there") == content);
    workspace.assert_outputs(&["out"]);
}

/// The files of a killed client do not hinder the next one, and none of their bytes get into the output.
#[test]
fn part_file_of_a_killed_client_is_reused() {
    let workspace = Workspace::new();
    let content = workspace.serve_pattern("f", 1, MIB);
    let server = original(&workspace, Script::swift());
    for engine in ["map", "write"] {
        let held = original(&workspace, Script::with_fault(Streams::Only(1), Fault::HoldsAfter(10)));
        let killed = PROGRAMS.fetch(held.addr, 4, "f", workspace.output("out")).start();
        // What is written to it below makes a file of anybody of one that is not marked.
        let part = workspace.output("out.dtpart");
        until_true("its marked part file", || getxattr(&part, "user.dt.part", &mut [0; 8]).is_ok());
        killed.signal(Signal::KILL);
        assert_eq!(killed.finish_within(PATIENCE).signal, Some(9));
        fs::write(part, vec![7; 3 * MIB]).expect("more than the file has");
        let run = PROGRAMS.fetch(server.addr, 4, "f", workspace.output("out")).options(["--engine", engine]);
        run.run().assert_success();
        assert!(fs::read(workspace.output("out")).expect("it is there") == content, "{engine}");
        workspace.assert_outputs(&["out"]);
    }
}
