//! Free space and properties of the file system that contains a file.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{fstatfs, fstatvfs};

/// Fails with [`io::ErrorKind::StorageFull`] if there is not enough space for `file` to have `len` bytes.
///
/// Space that the file occupies already counts, so that a transfer can resume on a disk that it has nearly filled.
pub(crate) fn ensure(file: &File, len: u64) -> io::Result<()> {
    let needed = len.saturating_sub(occupied_by(file)?);
    let stat = fstatvfs(file)?;
    let available = stat.f_bavail.saturating_mul(stat.f_frsize);
    // Some network file systems do not know and report 0 of 0.
    if needed > available && stat.f_blocks > 0 {
        return Err(io::ErrorKind::StorageFull.into());
    }
    Ok(())
}

/// The unit of `st_blocks`, whatever the file system's own.
const STAT_BLOCK: u64 = 512;

/// How many bytes of space the file occupies.
pub(crate) fn occupied_by(file: &File) -> io::Result<u64> {
    Ok(file.metadata()?.blocks().saturating_mul(STAT_BLOCK))
}

/// Whether the file is on tmpfs, where preallocation is double work.
pub(crate) fn is_tmpfs(file: &File) -> io::Result<bool> {
    Ok(magic(file)? == TMPFS)
}

/// Whether a mapping is at least as fast and as safe as writing.
///
/// On network and user-space file systems every fault is a round trip or a context switch, and errors on write-back
/// of a mapping are reported late or never.
pub(crate) fn is_good_at_mapping(file: &File) -> io::Result<bool> {
    Ok(!matches!(magic(file)?, NFS | FUSE | CIFS | SMB2 | V9FS | CEPH | VBOXSF))
}

/// Whether a full disk may be reported only on write-back, after all writes have succeeded.
pub(crate) fn defers_errors(file: &File) -> io::Result<bool> {
    Ok(!is_good_at_mapping(file)?)
}

/// Whether the file system is in memory.
pub(crate) fn is_in_memory(file: impl AsFd) -> io::Result<bool> {
    Ok(matches!(magic(file)?, TMPFS | RAMFS))
}

fn magic(file: impl AsFd) -> io::Result<u64> {
    // Signed on some architectures, where the large numbers below would be negative.
    let magic = fstatfs(file)?.f_type;
    Ok(u64::from(u32::try_from(magic & 0xffff_ffff).unwrap_or(0)))
}

// From linux/magic.h and the file systems' own headers.
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
    fn file_beyond_free_space_is_rejected() {
        let file = tempfile::tempfile().unwrap();
        assert!(ensure(&file, 1).is_ok());
        assert_eq!(ensure(&file, u64::MAX).unwrap_err().kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn occupied_space_counts_as_available() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![1; 1 << 20], 0).unwrap();
        let stat = fstatvfs(&file).unwrap();
        // Other programs change the free space concurrently, but not that fast.
        let margin = 512 << 10;
        let available = stat.f_bavail * stat.f_frsize - margin;
        assert!(ensure(&file, available + (1 << 20)).is_ok());
    }
}
