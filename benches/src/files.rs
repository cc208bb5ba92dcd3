//! The folders of a benchmark, and its output.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::Failure;

/// A random number from 0 to 1.
///
/// # Errors
/// The random source cannot be read.
pub fn chance() -> io::Result<f64> {
    let mut bytes = [0; 4];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX))
}

/// Allocates so much memory and frees it. A virtual machine gets memory from its host only when it is touched, which may take half of
/// a transfer's time; after this it is there for every candidate alike.
pub fn warm(size: u64) {
    if let Ok(size) = usize::try_from(size) {
        drop(std::hint::black_box(vec![1_u8; size]));
    }
}

/// A folder of its own in `parent`, removed with its content when dropped; what a killed program leaves begins with this name.
///
/// # Errors
/// The folder cannot be created in `parent`.
pub fn place(parent: &Path) -> io::Result<TempDir> {
    tempfile::Builder::new().prefix("dt-bench-").tempdir_in(parent)
}

/// The one output of a benchmark, in a folder that holds nothing else.
#[derive(Debug)]
pub struct Output {
    folder: PathBuf,
}

impl Output {
    /// An output in a folder `out` of `parent`.
    ///
    /// # Errors
    /// The folder cannot be created or emptied.
    pub fn new(parent: &Path) -> io::Result<Self> {
        let output = Self { folder: parent.join("out") };
        output.clear()?;
        Ok(output)
    }

    /// The output's path.
    pub fn path(&self) -> PathBuf {
        self.folder.join("output")
    }

    /// The journal that the product keeps beside it.
    pub fn journal(&self) -> PathBuf {
        self.folder.join("output.dtjournal")
    }

    /// Removes it and whatever the programs left beside it. This gives the pages back, which no transfer pays for, and
    /// nothing is left to be written to the disk, which the next one would wait for.
    ///
    /// # Errors
    /// The folder cannot be created or emptied.
    pub fn clear(&self) -> io::Result<()> {
        if self.folder.exists() {
            fs::remove_dir_all(&self.folder)?;
        }
        fs::create_dir(&self.folder)?;
        Ok(rustix::fs::syncfs(File::open(&self.folder)?)?)
    }

    /// Fails unless it is there with `size` bytes.
    ///
    /// # Errors
    /// If it is not.
    pub fn demand(&self, size: u64) -> Result<(), Failure> {
        match fs::metadata(self.path()) {
            Ok(found) if found.len() == size => Ok(()),
            Ok(found) => Err(format!("the output has {} of {size} bytes", found.len()).into()),
            Err(error) => Err(format!("there is no output: {error}").into()),
        }
    }
}
