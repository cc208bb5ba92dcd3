//! The two engines behind the storage trait, and which of them serves a file.
//!
//! [`MmapStore`] receives straight into a memory mapping, [`PwriteStore`] writes at offsets, for file systems that cannot map
//! or preallocate. Streams and digests see the trait alone.

use std::fs::File;
use std::str::FromStr;
use std::sync::Arc;
use std::{fmt, io};

use super::Store;
use crate::error::is_disk_full;
use crate::sink::store::growing::FIRST_GROWTH;
use crate::sink::store::mmap::MmapStore;
use crate::sink::store::pwrite::PwriteStore;
use crate::sys::filesystem;

/// Files below this size are written rather than mapped: two system calls against mapping, faults and unmapping.
const MAP_FROM: u64 = 128 << 10;

/// How received bytes get into the output file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Engine {
    /// Map where the file system is good at it, else write.
    #[default]
    Auto,
    /// Receive straight into a preallocated memory mapping; fail where that is not possible.
    Map,
    /// Receive into a buffer and write it at its offset. The buffers of all streams take no more than 128 MiB: of the large
    /// blocks of files beyond 128 GiB, fewer than 255 streams may come at once.
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

/// How much memory the buffers of blocks that are not received where they stay may take, all streams together: 255 blocks of
/// the usual 512 KiB.
pub(crate) const BUFFERS: u64 = 128 << 20;

/// As [`open`], for a file that comes in verified blocks of `block` bytes, `n_streams` of them at a time.
///
/// In memory, where a mapping's pages must be taken one by one, zeroed, and given back at the end, writing blocks from a
/// buffer that is in the core's cache is faster by a quarter (1.42 against 1.82 s for 2 GiB, verified, best runs), while on
/// ext4 mapping is (2.2 against 5.2 s).
pub(crate) fn open_for_blocks(
    file: &File,
    engine: Engine,
    len: u64,
    block: u64,
    n_streams: u8,
) -> io::Result<Arc<dyn Store>> {
    let buffers = block.saturating_mul(u64::from(n_streams));
    let engine = match engine {
        Engine::Auto if buffers <= BUFFERS && filesystem::is_tmpfs(file)? => Engine::Write,
        Engine::Auto | Engine::Map | Engine::Write => engine,
    };
    open(file, engine, Some(len))
}

/// Opens `file` as a store with room for `len` bytes, or for as many as will come if that is not known.
pub(crate) fn open(file: &File, engine: Engine, len: Option<u64>) -> io::Result<Arc<dyn Store>> {
    let room = len.unwrap_or(0);
    filesystem::ensure(file, room)?;
    let map = match engine {
        Engine::Auto => len.is_none_or(|len| len >= MAP_FROM) && filesystem::is_good_at_mapping(file)?,
        Engine::Map => true,
        Engine::Write => false,
    };
    if map {
        let mapped = MmapStore::new(file.try_clone()?)?;
        // An unknown length starts with one small window, to learn whether this file system can do it at all.
        match mapped.grow(len.unwrap_or(FIRST_GROWTH)) {
            Ok(()) => return Ok(Arc::new(mapped)),
            Err(error) if engine == Engine::Map || is_disk_full(&error) => return Err(error),
            // The file system cannot preallocate or map: the other engine can do without either.
            Err(_) => {}
        }
    }
    let positioned = PwriteStore::new(file.try_clone()?)?;
    positioned.grow(room)?;
    Ok(Arc::new(positioned))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::ByteRange;
    use crate::sink::store::FillError;
    use crate::sink::store::growing::{GrowingWriter, append};
    use proptest::prelude::*;

    fn both_engines(check: impl Fn(Engine)) {
        check(Engine::Map);
        check(Engine::Write);
    }

    fn content(store: &dyn Store, range: ByteRange) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut keep = |piece: &[u8]| {
            bytes.extend_from_slice(piece);
            Ok(())
        };
        store.read(range, &mut keep).unwrap();
        bytes
    }

    #[test]
    fn both_engines_put_bytes_where_they_belong() {
        both_engines(|engine| {
            let file = tempfile::tempfile().unwrap();
            let store = open(&file, engine, Some(300_000)).unwrap();
            let mut writer = store.writer(ByteRange::new(100_001, 300_000)).unwrap();
            let mut written = 0;
            while writer.remaining() > 0 {
                let mut source = |space: &mut [u8]| {
                    let n = space.len().min(33_333);
                    space[..n].fill(b'x');
                    Ok(n)
                };
                written += writer.fill(&mut source).unwrap();
            }
            assert_eq!(written, 199_999);
            assert_eq!(content(&*store, ByteRange::new(100_001, 300_000)), vec![b'x'; 199_999], "{engine}");
            assert_eq!(file.metadata().unwrap().len(), 300_000);
        });
    }

    #[test]
    fn a_failing_source_leaves_nothing_behind() {
        both_engines(|engine| {
            let file = tempfile::tempfile().unwrap();
            let store = open(&file, engine, Some(1000)).unwrap();
            let mut writer = store.writer(ByteRange::new(0, 1000)).unwrap();
            let mut broken = |_: &mut [u8]| Err(io::ErrorKind::ConnectionReset.into());
            assert!(matches!(writer.fill(&mut broken), Err(FillError::Source(_))), "{engine}");
            assert_eq!(writer.remaining(), 1000);
        });
    }

    #[test]
    fn a_lease_is_committed_whole_or_not_at_all() {
        both_engines(|engine| {
            let store = open(&tempfile::tempfile().unwrap(), engine, Some(1000)).unwrap();
            let range = ByteRange::new(100, 200);
            let mut lease = store.lease(range).unwrap();
            lease.fill(&mut |_| Ok(99)).unwrap();
            assert!(lease.commit().is_err(), "{engine}");
            assert!(store.read(range, &mut |_| Ok(())).is_err(), "{engine}");
            assert!(store.lease(range).is_some(), "{engine}: it is free again");
        });
    }

    #[test]
    fn a_full_disk_is_noticed_before_the_first_byte() {
        both_engines(|engine| {
            let file = tempfile::tempfile().unwrap();
            let error = open(&file, engine, Some(1 << 50)).unwrap_err();
            assert!(is_disk_full(&error), "{engine}: {error}");
        });
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn a_store_of_unknown_length_grows_as_bytes_come(pieces in proptest::collection::vec(1..900_000_usize, 1..8)) {
            for engine in [Engine::Map, Engine::Write] {
                let file = tempfile::tempfile().unwrap();
                let store = open(&file, engine, None).unwrap();
                let mut expected = Vec::new();
                let mut writer = GrowingWriter::new(Arc::clone(&store));
                for (i, len) in pieces.iter().enumerate() {
                    let piece = vec![u8::try_from(i + 1).unwrap(); *len];
                    let mut left = piece.as_slice();
                    while !left.is_empty() {
                        writer.fill(&mut |space| io::Read::read(&mut left, space)).unwrap();
                    }
                    expected.extend(piece);
                }
                drop(writer);
                append(&*store, u64::try_from(expected.len()).unwrap(), b"and more").unwrap();
                expected.extend(b"and more");
                let all = ByteRange::new(0, u64::try_from(expected.len()).unwrap());
                prop_assert_eq!(content(&*store, all), expected);
            }
        }
    }
}
