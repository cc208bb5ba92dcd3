//! Small file systems: one that a test can fill, and those of other systems.

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

/// A file system of another system, in a file; unmounted when dropped.
#[derive(Debug)]
pub struct ForeignDisk {
    folder: TempDir,
}

impl ForeignDisk {
    /// Mounts an empty NTFS, or says on standard error why that is not possible here.
    pub fn ntfs() -> Option<Self> {
        let folder = tempfile::Builder::new().prefix("dt-ntfs-").tempdir().expect("a folder is made");
        let (image, place) = (folder.path().join("image"), folder.path().join("disk"));
        let image_file = std::fs::File::create(&image).expect("the image is made");
        image_file.set_len(64 << 20).expect("it has holes");
        std::fs::create_dir(&place).expect("a folder is made");
        let run = |program: &str, args: &[&std::ffi::OsStr]| {
            let output = std::process::Command::new(program).args(args).output();
            output.map_err(|error| error.to_string()).and_then(|output| {
                let text = String::from_utf8_lossy(&output.stderr).into_owned();
                output.status.success().then_some(()).ok_or(text)
            })
        };
        let made = run("mkfs.ntfs", &["-F".as_ref(), "-Q".as_ref(), "-q".as_ref(), image.as_ref()])
            .and_then(|()| run("ntfs-3g", &[image.as_ref(), place.as_ref()]));
        match made {
            Ok(()) => Some(Self { folder }),
            Err(error) => {
                eprintln!("SKIPPED: an NTFS cannot be mounted here: {error}");
                None
            }
        }
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("disk")
    }
}

impl Drop for ForeignDisk {
    fn drop(&mut self) {
        if let Err(error) = unmount(self.path(), UnmountFlags::DETACH) {
            eprintln!("{} stays mounted: {error}", self.path().display());
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Err(error) = unmount(self.folder.path(), UnmountFlags::DETACH) {
            eprintln!("{} stays mounted: {error}", self.folder.path().display());
        }
    }
}
