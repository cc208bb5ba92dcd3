//! A folder of its own for every test, gone when the test ends.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::content;

/// A temporary folder with a place for what is served and a place for what is received.
#[derive(Debug)]
pub struct Workspace {
    folder: TempDir,
}

impl Workspace {
    /// A folder below the system's temporary folder.
    pub fn new() -> Self {
        Self::inside(&std::env::temp_dir())
    }

    /// A folder below `parent`.
    pub fn inside(parent: &Path) -> Self {
        let folder =
            tempfile::Builder::new().prefix("dt-test-").tempdir_in(parent).expect("a folder is made");
        let workspace = Self { folder };
        for path in [workspace.root(), workspace.outputs()] {
            fs::create_dir(&path).expect("a folder is made");
        }
        // Readable for the tests that run a program as another user.
        fs::set_permissions(workspace.folder.path(), fs::Permissions::from_mode(0o755))
            .expect("opened to all");
        workspace
    }

    /// A folder with room for `bytes`: in memory where that leaves enough of it, else on the disk. Where neither has it, this
    /// says on standard error that `what` is skipped.
    pub fn roomy(bytes: u64, what: &str) -> Option<Self> {
        // Twice the room in memory, since the programs and the other tests live there too.
        for (parent, needed) in [(PathBuf::from("/dev/shm"), bytes * 2), (std::env::temp_dir(), bytes)] {
            if free(&parent).is_some_and(|free| free > needed) {
                return Some(Self::inside(&parent));
            }
        }
        eprintln!("SKIPPED: {what}: neither memory nor disk has {bytes} bytes to spare");
        None
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The folder that is served.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// The folder that outputs are written to.
    pub fn outputs(&self) -> PathBuf {
        self.folder.path().join("outputs")
    }

    /// The path of an output.
    pub fn output(&self, name: &str) -> PathBuf {
        self.outputs().join(name)
    }

    /// Writes a pattern into the served folder and returns its bytes.
    pub fn serve_pattern(&self, name: &str, seed: u64, len: usize) -> Vec<u8> {
        let path = self.root().join(name);
        fs::create_dir_all(path.parent().expect("it is below the root")).expect("folders are made");
        content::write_pattern(&path, seed, len)
    }

    /// Fails if an output folder holds anything but these files, above all a part file.
    pub fn assert_outputs(&self, expected: &[&str]) {
        assert_eq!(files_in(&self.outputs()), expected, "files in the output folder");
    }
}

impl Default for Workspace {
    fn default() -> Self {
        Self::new()
    }
}

/// The names in a folder, sorted.
pub fn files_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("the folder is read");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("an entry is read").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// The bytes that may still be written to the file system of `folder`.
pub fn free(folder: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(folder).ok()?;
    stat.f_bavail.checked_mul(stat.f_frsize)
}
