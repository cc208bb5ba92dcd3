//! `dtserver` in protocol 1, byte for byte, whatever the client does; and the rate limit of `dtclient`.

mod answers;
mod limits;
mod refusals;
mod streams;
mod transfers;

use dt_testkit::content::part;
use dt_testkit::programs;
use dt_testkit::programs::{Programs, Server};
use dt_testkit::workspace::Workspace;

const PROGRAMS: Programs = programs!();
const MIB: usize = 1 << 20;

/// A server with `content` as `f`.
fn served(size: usize, options: &[&str]) -> (Workspace, Server, Vec<u8>) {
    let workspace = Workspace::new();
    let content = workspace.serve_pattern("f", 1, size);
    let server = PROGRAMS.serve(&workspace.root()).options(options).ready();
    (workspace, server, content)
}

fn bytes_of(content: &[u8], streams: u8, id: u8) -> &[u8] {
    let range = part(u64::try_from(content.len()).expect("it fits"), streams, id);
    let [start, end] = [range.start, range.end].map(|n| usize::try_from(n).expect("it fits"));
    &content[start..end]
}

fn post(body: &str) -> Vec<u8> {
    format!("POST f HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}
