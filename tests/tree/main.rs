//! Directories: downloaded with all that is in them, again, and against everything that is odd on either side.

mod download;
mod hostile;

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use dt_testkit::programs;
use dt_testkit::programs::{Programs, Run, Server};
use dt_testkit::workspace::Workspace;

const PROGRAMS: Programs = programs!();
const MIB: usize = 1 << 20;

/// Downloads a directory of the served one to an output of the workspace.
fn get(server: &Server, workspace: &Workspace, place: &str, output: &str) -> Run {
    let place = format!("{}/{place}", server.addr);
    PROGRAMS
        .client()
        .options(["get", "--json"])
        .args([place.as_ref(), OsStr::new("-o")])
        .args([workspace.output(output)])
}

/// What is below a directory: path, type, mode or size, time, and content or target.
fn described(root: &Path) -> Vec<(Vec<u8>, String)> {
    let mut all = Vec::new();
    describe(root, root, &mut all).expect("it is readable");
    all.sort();
    all
}

fn describe(root: &Path, folder: &Path, all: &mut Vec<(Vec<u8>, String)>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let found = fs::symlink_metadata(&path)?;
        let time = (found.mtime(), found.mtime_nsec());
        let text = if found.is_dir() {
            describe(root, &path, all)?;
            format!("directory {time:?}")
        } else if found.is_symlink() {
            format!("link to {}", fs::read_link(&path)?.display())
        } else {
            format!("file {time:?} {}", blake3::hash(&fs::read(&path)?))
        };
        let name = path.strip_prefix(root).expect("it is below").as_os_str().as_bytes().to_vec();
        all.push((name, text));
    }
    Ok(())
}
