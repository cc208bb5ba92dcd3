//! How many more files this process may open: each stream is one.

use std::fs;

use rustix::process::{Resource, getrlimit};

use crate::num::to_u64;

/// How many more files this process may open; `None` if that is not limited, or cannot be found out.
pub(crate) fn spare() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile).current?;
    // One of the entries is the folder that is being read.
    let used = to_u64(fs::read_dir("/proc/self/fd").ok()?.count()).saturating_sub(1);
    Some(limit.saturating_sub(used))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_files_are_not_spare() {
        let before = spare().unwrap();
        let files: Vec<_> = (0..100).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        // Other tests open and close files meanwhile, but not as many.
        assert!(spare().unwrap() < before - 30, "{before}");
        drop(files);
    }
}
