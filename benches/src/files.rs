//! Files to transfer, and the room there is for them.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::Failure;

/// Fills `path` with `len` bytes that do not compress and in which no two blocks are alike.
///
/// # Errors
/// What the system says of the file.
pub fn random_file(path: &Path, len: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    let mut state = len;
    let mut left = len;
    while left > 0 {
        let words = usize::try_from(left.div_ceil(8)).unwrap_or(usize::MAX).min(1 << 17);
        let chunk: Vec<u8> = (0..words).flat_map(|_| split_mix(&mut state).to_le_bytes()).collect();
        let taken = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
        file.write_all(chunk.get(..taken).unwrap_or(&chunk))?;
        left = left.saturating_sub(u64::try_from(taken).unwrap_or(left));
    }
    Ok(())
}

/// The next number of the generator `SplitMix64`.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number from 0 to 1 that nobody knows before.
///
/// # Errors
/// What the system says of its random source.
pub fn chance() -> io::Result<f64> {
    let mut bytes = [0; 4];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX))
}

/// Makes `path` a file of `len` bytes that is one hole.
///
/// # Errors
/// What the system says of the file.
pub fn sparse_file(path: &Path, len: u64) -> io::Result<()> {
    File::create(path)?.set_len(len)
}

/// The bytes that may still be written to the file system of `folder`.
///
/// # Errors
/// What the system says of it.
pub fn room(folder: &Path) -> io::Result<u64> {
    let told = rustix::fs::statvfs(folder)?;
    Ok(told.f_bavail.saturating_mul(told.f_frsize))
}

/// Fails unless both files have the same bytes.
///
/// # Errors
/// If they differ, or cannot be read.
pub fn demand_equal(one: &Path, other: &Path) -> Result<(), Failure> {
    let open = |path| -> io::Result<_> { Ok(BufReader::with_capacity(1 << 20, File::open(path)?)) };
    let (mut left, mut right) = (open(one)?, open(other)?);
    if fs::metadata(one)?.len() == fs::metadata(other)?.len() {
        let (mut a, mut b) = (vec![0; 1 << 20], vec![0; 1 << 20]);
        loop {
            let n = left.read(&mut a)?;
            let (Some(ours), Some(theirs)) = (a.get(..n), b.get_mut(..n)) else { break };
            if n == 0 {
                return Ok(());
            }
            right.read_exact(theirs)?;
            if ours != theirs {
                break;
            }
        }
    }
    Err(format!("{} is not {}", other.display(), one.display()).into())
}

/// Takes so much memory, and gives it back: what a virtual machine gets from its host only when it is touched, up to half
/// of a transfer's time, is there then for every candidate alike.
pub fn warm(size: u64) {
    if let Ok(size) = usize::try_from(size) {
        drop(std::hint::black_box(vec![1_u8; size]));
    }
}

/// A folder of its own in `parent`, removed with what it has when dropped; what a killed program leaves has its name.
///
/// # Errors
/// What the system says of `parent`.
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
    /// What the system says of the folder.
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
    /// What the system says of the folder.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_random_file_has_its_length_and_equals_itself_only() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        random_file(&a, 1_500_003).unwrap();
        random_file(&b, 1_500_003).unwrap();
        assert_eq!(fs::metadata(&a).unwrap().len(), 1_500_003);
        demand_equal(&a, &b).unwrap();
        let mut bytes = fs::read(&b).unwrap();
        bytes[1_400_000] ^= 1;
        fs::write(&b, bytes).unwrap();
        assert!(demand_equal(&a, &b).is_err());
    }
}
