//! What the file system below a file has room for, and what it is good at.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{fstatfs, fstatvfs};

/// Fails with [`io::ErrorKind::StorageFull`] when there is not room enough for `file` to have `len` bytes.
///
/// What it has taken already counts, so that a transfer can be gone on with on a disk that it has nearly filled.
pub(crate) fn ensure(file: &File, len: u64) -> io::Result<()> {
    let needed = len.saturating_sub(room_of(file)?);
    let stat = fstatvfs(file)?;
    let available = stat.f_bavail.saturating_mul(stat.f_frsize);
    // Some network file systems do not know and say 0 of 0.
    if needed > available && stat.f_blocks > 0 {
        return Err(io::ErrorKind::StorageFull.into());
    }
    Ok(())
}

/// The unit of `st_blocks`, whatever the file system's own.
const STAT_BLOCK: u64 = 512;

/// How many bytes the file has room for.
pub(crate) fn room_of(file: &File) -> io::Result<u64> {
    Ok(file.metadata()?.blocks().saturating_mul(STAT_BLOCK))
}

/// Whether the file lives in memory, where preallocation is double work.
pub(crate) fn is_tmpfs(file: &File) -> io::Result<bool> {
    Ok(magic(file)? == TMPFS)
}

/// Whether mapping is at least as fast and as safe as writing there.
///
/// On network and user-space file systems every fault is a round trip or a context switch, and errors on write-back
/// of a mapping are reported late or never.
pub(crate) fn is_good_at_mapping(file: &File) -> io::Result<bool> {
    Ok(!matches!(magic(file)?, NFS | FUSE | CIFS | SMB2 | V9FS | CEPH | VBOXSF))
}

/// Whether a full disk may show only when the bytes are written out, after every write has succeeded.
pub(crate) fn defers_errors(file: &File) -> io::Result<bool> {
    Ok(!is_good_at_mapping(file)?)
}

/// Whether all of the file is in memory, as its system has no disk.
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
    fn room_is_asked_of_the_file_system() {
        let file = tempfile::tempfile().unwrap();
        assert!(ensure(&file, 1).is_ok());
        assert_eq!(ensure(&file, u64::MAX).unwrap_err().kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn what_the_file_has_already_is_not_asked_for_again() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![1; 1 << 20], 0).unwrap();
        let stat = fstatvfs(&file).unwrap();
        // Other programs take and give room meanwhile, but not that fast.
        let margin = 512 << 10;
        let available = stat.f_bavail * stat.f_frsize - margin;
        assert!(ensure(&file, available + (1 << 20)).is_ok());
    }
}
