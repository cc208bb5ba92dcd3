//! A small file system that a test can fill.

use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

/// A mounted tmpfs of ten megabytes; unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk {
    folder: TempDir,
}

/// The size of a [`SmallDisk`].
pub const SMALL_DISK: usize = 10 << 20;

impl SmallDisk {
    /// Mounts one, or says on standard error why that is not possible here.
    pub fn mount() -> Option<Self> {
        let folder = tempfile::Builder::new().prefix("dt-disk-").tempdir().expect("a folder is made");
        match mount("tmpfs", folder.path(), "tmpfs", MountFlags::empty(), Some(c"size=10m")) {
            Ok(()) => Some(Self { folder }),
            Err(error) => {
                eprintln!("SKIPPED: mounting a small tmpfs is not permitted here: {error}");
                None
            }
        }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The path of a file on it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Err(error) = unmount(self.folder.path(), UnmountFlags::DETACH) {
            eprintln!("{} stays mounted: {error}", self.folder.path().display());
        }
    }
}
