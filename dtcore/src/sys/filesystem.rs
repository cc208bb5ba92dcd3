//! Properties of the file system that holds a file: free space, and how to write there.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{fstatfs, fstatvfs};

use crate::num::to_u64;

/// Checks that there is enough space for `file` to grow to `len` bytes.
///
/// The space that the file already occupies counts as available, so that a transfer can be resumed on a disk that it has
/// nearly filled.
///
/// # Errors
/// [`io::ErrorKind::StorageFull`] if there is not enough space.
pub(crate) fn ensure_space(file: &File, len: u64) -> io::Result<()> {
    let needed = len.saturating_sub(allocated(file)?);
    let stat = fstatvfs(file)?;
    // Saturating: some file systems report as many blocks as fit into the number.
    let available = stat.f_bavail.saturating_mul(stat.f_frsize);
    // Some network file systems do not know, and report 0 of 0.
    if needed > available && stat.f_blocks > 0 {
        return Err(io::ErrorKind::StorageFull.into());
    }
    Ok(())
}

/// The unit of `st_blocks` on every file system.
const STAT_BLOCK: u64 = 512;

/// How many bytes are allocated for the file.
pub(crate) fn allocated(file: &File) -> io::Result<u64> {
    Ok(file.metadata()?.blocks() * STAT_BLOCK)
}

/// Whether the file is on a tmpfs, where preallocation doubles the work.
pub(crate) fn is_tmpfs(file: &File) -> io::Result<bool> {
    Ok(magic(file)? == TMPFS)
}

/// How many bytes may be written before the kernel slows a writer down to the speed of the disk; 0 if it does not say.
pub(crate) fn unthrottled_bytes() -> u64 {
    let Ok(statistics) = fs::read_to_string("/proc/vmstat") else { return 0 };
    let value = |name| {
        let lines = &mut statistics.lines();
        lines.find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    let pages = value("nr_dirty_threshold ").midpoint(value("nr_dirty_background_threshold "));
    pages * to_u64(rustix::param::page_size())
}

/// Whether a mapping is at least as fast and as safe as writing.
///
/// On network and user-space file systems every page fault is a round trip or a context switch, and write-back errors of
/// a mapping are reported late or never.
pub(crate) fn is_good_at_mapping(file: &File) -> io::Result<bool> {
    Ok(!matches!(magic(file)?, NFS | FUSE | CIFS | SMB2 | V9FS | CEPH | VBOXSF))
}

/// Whether a full disk may be reported only at write-back, after every write has succeeded.
pub(crate) fn defers_errors(file: &File) -> io::Result<bool> {
    Ok(!is_good_at_mapping(file)?)
}

/// Whether the file system keeps all of the file in memory.
pub(crate) fn is_in_memory(file: impl AsFd) -> io::Result<bool> {
    Ok(matches!(magic(file)?, TMPFS | RAMFS))
}

fn magic(file: impl AsFd) -> io::Result<u64> {
    // Signed on some architectures, where the large constants below would be negative.
    let magic = fstatfs(file)?.f_type;
    Ok(u64::from(u32::try_from(magic & 0xffff_ffff).unwrap_or(0)))
}

// From linux/magic.h and the headers of the file systems.
const TMPFS: u64 = 0x0102_1994;
const RAMFS: u64 = 0x8584_58f6;
const NFS: u64 = 0x6969;
const FUSE: u64 = 0x6573_5546;
const CIFS: u64 = 0xff53_4d42;
const SMB2: u64 = 0xfe53_4d42;
const V9FS: u64 = 0x0102_1997;
const CEPH: u64 = 0x00c3_6400;
const VBOXSF: u64 = 0x786f_4256;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn full_file_system_is_detected() {
        let file = tempfile::tempfile().unwrap();
        assert!(ensure_space(&file, 1).is_ok());
        assert_eq!(ensure_space(&file, u64::MAX).unwrap_err().kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn allocated_space_counts_as_available() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![1; 1 << 20], 0).unwrap();
        let stat = fstatvfs(&file).unwrap();
        // Other programs use and free space meanwhile, but not that much.
        let margin = 512 << 10;
        let available = stat.f_bavail * stat.f_frsize - margin;
        assert!(ensure_space(&file, available + (1 << 20)).is_ok());
    }
}
