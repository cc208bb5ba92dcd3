//! The command lines: exit codes, messages, signals, and what is left behind.

mod exit_codes;
mod messages;
mod outputs;
mod signals;
mod usage;

use dt_tests::original_server::{OriginalServer, Script};
use dt_tests::programs;
use dt_tests::programs::Programs;
use dt_tests::workspace::Workspace;

const PROGRAMS: Programs = programs!();
const MIB: usize = 1 << 20;
const BEFORE: &[u8] = b"what was there before";

fn original(workspace: &Workspace, script: Script) -> OriginalServer {
    OriginalServer::start(&workspace.root().join("f"), script)
}
