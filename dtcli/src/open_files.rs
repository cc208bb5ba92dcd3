//! The limit of open files, which every stream counts against.

use std::io;

use rustix::process::{Resource, getrlimit, setrlimit};

/// The fewest open files with which a program can do anything at all.
const FEWEST: u64 = 32;

/// Raises the limit of open files as far as it goes: every stream needs one, and the usual soft limit is 1024.
///
/// # Errors
/// If even the hard limit leaves too few to start with.
pub fn raise_open_files() -> io::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // If it cannot be raised, whoever runs short says so.
    let _ = setrlimit(Resource::Nofile, limit);
    match getrlimit(Resource::Nofile).current {
        Some(n) if n < FEWEST => {
            Err(io::Error::other(format!("only {n} files may be open; raise ulimit -n to {FEWEST} or more")))
        }
        _ => Ok(()),
    }
}
