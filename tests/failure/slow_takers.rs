//! Transfers that wait for their own end: for a reader of the output that rests, for a digest slower than the path. The
//! server must see all the time that they are there.

use std::fs::{self, File};
use std::io::Write;
use std::thread::sleep;
use std::time::Duration;

use dt_testkit::content::{assert_same_file, write_sparse};
use dt_testkit::pipe::Pipe;
use dt_testkit::workspace::Workspace;

use crate::{MIB, PROGRAMS};

#[test]
fn reader_may_pause_longer_than_the_stall_timeout() {
    let workspace = Workspace::new();
    let content = workspace.serve_pattern("f", 1, 300 * MIB);
    let server = PROGRAMS.serve(&workspace.root()).args(["--stall-timeout", "3s"]).ready();
    let mut pipe = Pipe::make(&workspace.output("pipe"));
    let client = PROGRAMS.fetch(server.addr, 4, "f", workspace.output("pipe")).start();
    let mut received = vec![pipe.first_byte()];
    // The reader pauses for twice the server's stall timeout.
    sleep(Duration::from_secs(6));
    received.extend(pipe.drain());
    client.finish_within(Duration::from_secs(30)).assert_success();
    assert!(received == content, "the bytes differ");
}

#[test]
fn late_streams_are_not_cut_off() {
    // Two to three times the server's patience, at the speed of the digest.
    let size = 5 << 30;
    let Some(workspace) = Workspace::roomy(size, "streams that are read late") else { return };
    write_sparse(&workspace.root().join("f"), size, 8);
    let server = PROGRAMS.serve(&workspace.root()).args(["--stall-timeout", "3s"]).ready();
    let run = PROGRAMS.fetch(server.addr, 8, "f", workspace.output("out")).limit(Duration::from_secs(120));
    run.run().assert_success();
    assert_same_file(&workspace.root().join("f"), &workspace.output("out"));
}

#[test]
fn appended_output_keeps_its_bytes() {
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, 7);
    let server = PROGRAMS.serve(&workspace.root()).ready();
    let path = workspace.output("log");
    let mut log = File::options().create(true).append(true).open(&path).expect("the log is made");
    log.write_all(b"before ").expect("it is written");
    // The shell's `dtclient .. /dev/stdout >> log`.
    let mut client = std::process::Command::new(PROGRAMS.client);
    client.args(["--quiet", &server.addr.to_string(), "2", "f", "/dev/stdout"]);
    let status = client.stdout(log).status().expect("the client runs");
    assert!(status.success(), "{status}");
    assert_eq!(fs::read(&path).expect("it is there").len(), b"before ".len() + 7);
}
