//! How many more files this process may open: each stream is one.

use std::fs;

use rustix::process::{Resource, getrlimit};

use crate::num::to_u64;

/// With a limit of so many files those that are open are not counted, which would only cost time.
const MANY: u64 = 16 << 10;

/// How many more files this process may open; `None` if that is not limited, or cannot be found out.
pub(crate) fn spare() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile).current.filter(|limit| *limit < MANY)?;
    // One of the entries is the folder that is being read.
    let used = to_u64(fs::read_dir("/proc/self/fd").ok()?.count()).saturating_sub(1);
    Some(limit.saturating_sub(used))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_files_are_not_spare() {
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = Some(limit.maximum.unwrap_or(u64::MAX).min(MANY / 2));
        rustix::process::setrlimit(Resource::Nofile, limit).unwrap();
        let before = spare().unwrap();
        let files: Vec<_> = (0..100).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        // Other tests open and close files meanwhile, but not as many.
        assert!(spare().unwrap() < before - 30, "{before}");
        drop(files);
    }
}
