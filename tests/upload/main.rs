//! Uploads: the client sends, the server receives and verifies.

mod hostile;
mod refusals;
mod resume;
mod transfers;

use std::fs;
use std::path::PathBuf;

use dt_testkit::content::pattern;
use dt_testkit::programs;
use dt_testkit::programs::{Programs, Run, Server};
use dt_testkit::workspace::{Workspace, files_in};

const PROGRAMS: Programs = programs!();
const MIB: usize = 1 << 20;

/// A server that takes uploads into a folder of its own, and a client's files.
struct Scene {
    workspace: Workspace,
    server: Server,
}

impl Scene {
    fn new(options: &[&str]) -> Self {
        let workspace = Workspace::new();
        let server = server(&workspace, options).ready();
        Self { workspace, server }
    }

    /// Writes a file of the client.
    fn local(&self, name: &str, len: usize) -> Vec<u8> {
        let content = pattern(3, len);
        fs::write(self.path(name), &content).expect("it is written");
        content
    }

    fn path(&self, name: &str) -> PathBuf {
        self.workspace.root().join(name)
    }

    /// The path that a file has on the server.
    fn stored(&self, name: &str) -> PathBuf {
        self.workspace.output(name)
    }

    fn put(&self, local: &str, remote: &str) -> Run {
        self.put_as(local, &format!("{}/{remote}", self.server.addr))
    }

    /// To a place, which another address may lead to.
    fn put_as(&self, local: &str, place: &str) -> Run {
        let local = if local == "-" { PathBuf::from("-") } else { self.path(local) };
        PROGRAMS.client().options(["put", "--json"]).args([local]).args([place])
    }

    #[track_caller]
    fn assert_stored(&self, name: &str, content: &[u8]) {
        assert!(fs::read(self.stored(name)).expect("it is there") == content, "{name}");
        assert_eq!(files_in(&self.workspace.outputs()), [name]);
    }
}

/// A server that takes uploads into the folder of outputs.
fn server(workspace: &Workspace, options: &[&str]) -> Run {
    let run = PROGRAMS.serve(&workspace.root()).options(options.iter().copied());
    run.options([PathBuf::from("--upload-dir"), workspace.outputs()])
}
