//! Faults during a transfer: peers that die, lie, stall or stay silent, disks that fill up, files that change.

mod bad_answers;
mod bad_clients;
mod outputs;
mod slow_takers;
mod sources;
mod stream_faults;

use std::fs;

use dt_testkit::original_server::{OriginalServer, Script};
use dt_testkit::programs;
use dt_testkit::programs::Programs;
use dt_testkit::workspace::Workspace;

const PROGRAMS: Programs = programs!();
const MIB: usize = 1 << 20;
const ENGINES: [&str; 2] = ["map", "write"];
const BEFORE: &[u8] = b"what was there before";

/// One transfer from a misbehaving original: it must end with one of `codes`, and leave what was there before as it was.
fn check_bad_server(what: &str, script: &Script, size: usize, options: &[&str], codes: &[i32]) {
    for engine in ENGINES {
        let workspace = Workspace::new();
        workspace.serve_pattern("f", 1, size);
        fs::write(workspace.output("out"), BEFORE).expect("it is written");
        let server = OriginalServer::start(&workspace.root().join("f"), script.clone());
        let outcome = PROGRAMS
            .fetch(server.addr, 4, "f", workspace.output("out"))
            .options(["--engine", engine])
            .options(options)
            .run();
        assert!(
            outcome.code.is_some_and(|code| codes.contains(&code)),
            "{codes:?}, {what}, {engine}: {outcome}"
        );
        outcome.assert_one_line("dtclient: ");
        assert!(!server.requests().is_empty(), "{what}: the client sent no request");
        workspace.assert_outputs(&["out"]);
        assert_eq!(fs::read(workspace.output("out")).expect("it is there"), BEFORE, "{what}, {engine}");
        let piped = PROGRAMS.fetch(server.addr, 4, "f", "-").options(options).run();
        let expected = piped.code.is_some_and(|code| codes.contains(&code));
        assert!(expected, "{codes:?}, {what}, to standard output: {:?}, {}", piped.code, piped.stderr);
    }
}
