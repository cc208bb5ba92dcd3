//! Protocol 2 end to end: complete transfers, faults of the network, and peers that violate it.

mod arrivals;
mod corruption;
mod events;
mod faults;
mod hellos;
mod negotiation;
mod options;
mod peers;
mod reachability;
mod servers;
mod sessions;
mod sources;
mod transfers;

use std::net::SocketAddr;

use dt_testkit::events::{Events, number};
use dt_testkit::process::Process;
use dt_testkit::programs;
use dt_testkit::programs::{Programs, Run, Server};
use dt_testkit::wait::until_true;
use dt_testkit::workspace::Workspace;

const PROGRAMS: Programs = programs!();
const MIB: usize = 1 << 20;
const ENGINES: [&str; 2] = ["map", "write"];

/// A served file `f` of so many bytes.
fn served(len: usize) -> (Workspace, Server, Vec<u8>) {
    let workspace = Workspace::new();
    let content = workspace.serve_pattern("f", 1, len);
    let server = PROGRAMS.serve(&workspace.root()).ready();
    (workspace, server, content)
}

/// A client that fetches `f` into `out` and prints its events.
fn fetch(addr: SocketAddr, streams: u8, workspace: &Workspace) -> Run {
    PROGRAMS.fetch(addr, streams, "f", workspace.output("out")).options(["--json", "--protocol", "2"])
}

/// Waits until so many bytes are verified.
fn until_verified(client: &mut Process, bytes: u64) {
    until_true("verified bytes", || {
        assert!(!client.has_ended(), "the client has ended: {}", client.stderr());
        let events = Events::so_far(&client.stdout());
        events.last("progress").is_some_and(|progress| number(progress, "verified") >= bytes)
    });
}
