//! The command lines: exit codes, messages, signals, and the files that remain.

mod exit_codes;
mod limits;
mod messages;
mod odd_outputs;
mod outputs;
mod signals;
mod usage;
mod waiting;

use dt_testkit::original_server::{OriginalServer, Script};
use dt_testkit::programs;
use dt_testkit::programs::Programs;
use dt_testkit::workspace::Workspace;

const PROGRAMS: Programs = programs!();
const MIB: usize = 1 << 20;
const BEFORE: &[u8] = b"what was there before";

fn original(workspace: &Workspace, script: Script) -> OriginalServer {
    OriginalServer::start(&workspace.root().join("f"), script)
}
