//! The two engines that implement the storage trait, and the choice between them.
//!
//! [`MmapStore`] receives straight into a memory mapping, [`PwriteStore`] writes at offsets, for file systems that cannot map
//! or preallocate. Streams and digests see the trait alone.

use std::fs::File;
use std::str::FromStr;
use std::sync::Arc;
use std::{fmt, io};

use super::mmap::MmapStore;
use super::{PwriteStore, Store};
use crate::failure::is_disk_full;
use crate::sys::filesystem;

/// Smaller files are written rather than mapped: two system calls instead of mapping, faults and unmapping.
const MAP_FROM: u64 = 128 << 10;

/// How received bytes get into the output file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Engine {
    /// Map where the file system is good at mapping, otherwise write.
    #[default]
    Auto,
    /// Receive straight into a preallocated memory mapping; fail where that is not possible.
    Map,
    /// Receive into a buffer and write it at its offset. The buffers of all streams take no more than 128 MiB: with the large
    /// blocks of files over 128 GiB, fewer than 255 streams may receive at once.
    Write,
}

impl FromStr for Engine {
    type Err = InvalidEngine;

    fn from_str(text: &str) -> Result<Self, InvalidEngine> {
        match text {
            "auto" => Ok(Self::Auto),
            "map" => Ok(Self::Map),
            "write" => Ok(Self::Write),
            _ => Err(InvalidEngine),
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Map => "map",
            Self::Write => "write",
        })
    }
}

/// Text that names no [`Engine`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the engine is auto, map or write")]
pub struct InvalidEngine;

/// How much memory the buffers of blocks that are not received in their place may take, all streams together: 255 blocks of
/// the usual 512 KiB.
pub(crate) const BUFFERS: u64 = 128 << 20;

/// As [`open`], for a file that is received in verified blocks of `block` bytes, `n_streams` of them at a time.
///
/// Where the pages stay in memory, writing blocks from a buffer that is in the core's cache is faster than mapping, whose pages
/// must be taken one by one and zeroed (2 GiB, verified, best runs: tmpfs 1.42 against 1.82 s, ext4 1.05 against 1.54 s). Where
/// the disk sets the pace, mapping is (6 GiB on ext4: 6.3 to 8.7 against 9.3 to 17 s): a write holds the file's lock
/// while it waits for a page, and every other one waits for the lock.
pub(crate) fn open_for_blocks(
    file: &File,
    engine: Engine,
    len: u64,
    block: u64,
    n_streams: u8,
) -> io::Result<Arc<dyn Store>> {
    let buffers = block * u64::from(n_streams);
    let engine = match engine {
        Engine::Auto
            if len >= MAP_FROM
                && buffers <= BUFFERS
                && (filesystem::is_tmpfs(file)? || len <= filesystem::unthrottled_bytes()) =>
        {
            Engine::Write
        }
        Engine::Auto | Engine::Map | Engine::Write => engine,
    };
    open(file, engine, len)
}

/// Opens `file` as a store with room for `len` bytes.
pub(crate) fn open(file: &File, engine: Engine, len: u64) -> io::Result<Arc<dyn Store>> {
    filesystem::ensure_space(file, len)?;
    let map = match engine {
        Engine::Auto => len >= MAP_FROM && filesystem::is_good_at_mapping(file)?,
        // A mapping of no bytes does not exist.
        Engine::Map => len > 0,
        Engine::Write => false,
    };
    if map {
        match MmapStore::new(file.try_clone()?, len) {
            Ok(store) => return Ok(Arc::new(store)),
            Err(error) if engine == Engine::Map || is_disk_full(&error) => return Err(error),
            // The file system cannot preallocate or map: the other engine needs neither.
            Err(_) => {}
        }
    }
    Ok(Arc::new(PwriteStore::new(file.try_clone()?, len)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::ByteRange;
    use crate::sink::store::{FillError, write};
    use std::io::Read;

    fn both_engines(check: impl Fn(Engine)) {
        check(Engine::Map);
        check(Engine::Write);
    }

    fn content(store: &dyn Store, range: ByteRange) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        store.read(range, &mut |piece| io::Write::write_all(&mut bytes, piece))?;
        Ok(bytes)
    }

    #[test]
    fn both_engines_put_bytes_in_their_place() {
        both_engines(|engine| {
            let file = tempfile::tempfile().unwrap();
            let store = open(&file, engine, 300_000).unwrap();
            let range = ByteRange::new(100_001, 300_000);
            let mut lease = store.lease(range).unwrap();
            let mut received = 0;
            while lease.remaining() > 0 {
                let mut source = |space: &mut [u8]| io::repeat(b'x').take(33_333).read(space);
                received += lease.fill(&mut source).unwrap();
            }
            assert_eq!(received, 199_999);
            assert_eq!(lease.received().unwrap(), vec![b'x'; 199_999], "{engine}");
            assert!(!store.is_filled(range));
            lease.commit().unwrap();
            assert!(store.is_filled(range));
            assert_eq!(content(&*store, range).unwrap(), vec![b'x'; 199_999], "{engine}");
            assert_eq!(file.metadata().unwrap().len(), 300_000);
        });
    }

    #[test]
    fn failing_source_leaves_nothing() {
        both_engines(|engine| {
            let store = open(&tempfile::tempfile().unwrap(), engine, 1000).unwrap();
            let mut lease = store.lease(ByteRange::new(0, 1000)).unwrap();
            let mut broken = |_: &mut [u8]| Err(io::ErrorKind::ConnectionReset.into());
            assert!(matches!(lease.fill(&mut broken), Err(FillError::Source(_))), "{engine}");
            assert_eq!(lease.remaining(), 1000);
        });
    }

    #[test]
    fn commit_counts_the_received_bytes_and_frees_the_rest() {
        both_engines(|engine| {
            let store = open(&tempfile::tempfile().unwrap(), engine, 1000).unwrap();
            let mut lease = store.lease(ByteRange::new(100, 200)).unwrap();
            lease.fill(&mut |space| (&b"some"[..]).read(space)).unwrap();
            lease.flush().unwrap();
            lease.commit().unwrap();
            assert_eq!(content(&*store, ByteRange::new(100, 104)).unwrap(), b"some", "{engine}");
            assert!(content(&*store, ByteRange::new(100, 105)).is_err(), "{engine}");
            assert!(store.lease(ByteRange::new(103, 200)).is_none(), "{engine}");
            write(&*store, 104, &[1; 96]).unwrap();
            assert!(write(&*store, 199, &[1]).is_err(), "{engine}: written already");
        });
    }

    #[test]
    fn dropped_lease_frees_its_range() {
        both_engines(|engine| {
            let store = open(&tempfile::tempfile().unwrap(), engine, 1000).unwrap();
            let range = ByteRange::new(100, 200);
            let mut lease = store.lease(range).unwrap();
            lease.fill(&mut |space| Ok(space.len())).unwrap();
            lease.flush().unwrap();
            drop(lease);
            assert!(content(&*store, range).is_err(), "{engine}");
            assert!(store.lease(range).is_some(), "{engine}");
        });
    }

    #[test]
    fn full_disk_is_reported_before_the_first_byte() {
        both_engines(|engine| {
            let error = open(&tempfile::tempfile().unwrap(), engine, 1 << 50).unwrap_err();
            assert!(is_disk_full(&error), "{engine}: {error}");
        });
    }

    #[test]
    fn empty_file_is_a_store() {
        both_engines(|engine| {
            let store = open(&tempfile::tempfile().unwrap(), engine, 0).unwrap();
            assert_eq!(content(&*store, ByteRange::new(0, 0)).unwrap(), b"", "{engine}");
        });
    }
}
