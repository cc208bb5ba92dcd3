//! The limit of open files, against which every stream counts.

use std::io;

use rustix::process::{Resource, getrlimit, setrlimit};

/// With fewer open files no transfer is possible.
const MIN: u64 = 32;

/// How many of them a program needs that are no streams.
const BESIDES_STREAMS: u64 = 24;

/// Raises the limit of open files to the hard limit: every stream needs one, and the usual soft limit is 1024. Returns how many
/// streams there may be.
///
/// # Errors
/// The hard limit is too low for any transfer.
pub fn raise_open_files() -> io::Result<u64> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // If that fails, the operation that runs out of files reports it.
    let _ = setrlimit(Resource::Nofile, limit);
    match getrlimit(Resource::Nofile).current {
        Some(n) if n < MIN => {
            Err(io::Error::other(format!("only {n} files may be open; raise ulimit -n to {MIN} or more")))
        }
        limit => Ok(limit.unwrap_or(u64::MAX) - BESIDES_STREAMS),
    }
}
