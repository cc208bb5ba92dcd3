//! Keeps a cold disk from stalling the threads that serve all other transfers.
//!
//! `sendfile` waits for pages that are not in memory, and blocks every task of its thread meanwhile. So each chunk is
//! probed first, and if it is not in memory it is read into the page cache on a thread that may block. The probe is a
//! sample: most waits for the disk are kept off those threads, not every one.

use std::io::IoSliceMut;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use rustix::io::{Errno, ReadWriteFlags};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::backend::Object;
use crate::manifest::ByteRange;
use crate::sys::PieceReader;
use crate::sys::filesystem::is_in_memory;

/// Reads ahead for one stream.
#[derive(Debug)]
pub(crate) struct Prefetcher {
    object: Arc<dyn Object>,
    /// The chunk that is being read ahead while the previous one is sent.
    ahead: Option<JoinHandle<()>>,
}

impl Prefetcher {
    pub(crate) fn new(object: Arc<dyn Object>) -> Self {
        Self { object, ahead: None }
    }

    /// Waits until `chunk` is in memory, and starts to read `next` if the file turns out to be cold.
    ///
    /// A read error is not reported here: `sendfile` meets it again.
    ///
    /// # Cancel safety
    /// The chunk being read is still read, by a thread of its own, and nothing waits for it.
    pub(crate) async fn ensure_cached(&mut self, chunk: ByteRange, next: ByteRange) {
        let was_ahead = self.ahead.is_some();
        if let Some(ahead) = self.ahead.take() {
            let _ = ahead.await;
        }
        let mut cold = was_ahead;
        if !is_cached(&*self.object, chunk) {
            cold = true;
            let _ = self.read(chunk).await;
        }
        if cold && !is_cached(&*self.object, next) {
            self.ahead = Some(self.read(next));
        }
    }

    fn read(&self, chunk: ByteRange) -> JoinHandle<()> {
        let object = Arc::clone(&self.object);
        spawn_blocking(move || read_into_cache(&*object, chunk))
    }
}

/// Whether the chunk's first, middle and last pages are in memory, from which that of the others is inferred.
///
/// A chunk is read in full, but a kernel short of memory drops single pages again. If it dropped others than these three,
/// `sendfile` waits for the disk: late, never wrong. Probing every page would cost 256 calls.
///
/// What is not a file has no page cache, and is read by threads that may block anyway.
fn is_cached(object: &dyn Object, chunk: ByteRange) -> bool {
    let Some(file) = object.as_fd() else { return true };
    if chunk.is_empty() {
        return true;
    }
    let (first, last) = (chunk.start(), chunk.end() - 1);
    [first, first.midpoint(last), last].into_iter().all(|offset| is_page_cached(file, offset))
}

fn is_page_cached(file: BorrowedFd<'_>, offset: u64) -> bool {
    let mut byte = [0];
    match rustix::io::preadv2(file, &mut [IoSliceMut::new(&mut byte)], offset, ReadWriteFlags::NOWAIT) {
        Err(Errno::AGAIN) => false,
        // File systems without this call are all in memory, or may be waited for: NFS, CIFS, FUSE.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => is_in_memory(file).unwrap_or(false),
        Ok(_) | Err(_) => true,
    }
}

/// Reads the chunk, only to fill the page cache.
fn read_into_cache(object: &dyn Object, chunk: ByteRange) {
    let mut pieces = PieceReader::new(chunk, |buffer, offset| object.read_at(buffer, offset));
    let mut buffer = pieces.buffer();
    while let Ok([_, ..]) = pieces.next(&mut buffer) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::fs::SourceFile;
    use std::fs::File;
    use std::io::Write;
    use std::num::NonZeroU64;
    use std::os::fd::AsFd;

    #[tokio::test]
    async fn cold_chunk_is_cached_afterwards() {
        let file = tempfile::tempfile().unwrap();
        let size = 4 << 20;
        file.set_len(size).unwrap();
        file.sync_all().unwrap();
        // Not every file system drops pages on request; where it does not, nothing is cold here.
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
        let source = Arc::new(SourceFile::new(file).unwrap());
        let (first, second) = (ByteRange::new(0, size / 2), ByteRange::new(size / 2, size));
        let mut prefetcher = Prefetcher::new(source.clone());
        prefetcher.ensure_cached(first, second).await;
        assert!(is_cached(&*source, first));
        prefetcher.ensure_cached(second, ByteRange::new(size, size)).await;
        assert!(is_cached(&*source, second));
    }

    #[test]
    fn without_probing_only_memory_file_systems_are_cached() {
        let cached = |file: File| is_page_cached(file.as_fd(), 0);
        assert!(!cached(File::open("/proc/self/limits").unwrap()));
        assert!(cached(tempfile::tempfile_in("/dev/shm").unwrap()));
    }

    #[test]
    fn chunk_that_lost_some_pages_is_cold() {
        let size = 1 << 20;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; size]).unwrap();
        // Only synced pages can be dropped from memory.
        file.sync_all().unwrap();
        let source = SourceFile::new(file).unwrap();
        let size = u64::try_from(size).unwrap();
        let chunk = ByteRange::new(0, size);
        let drop_pages = |from: u64, len: u64| {
            read_into_cache(&source, chunk);
            let _ = rustix::fs::fadvise(
                source.as_fd().unwrap(),
                from,
                NonZeroU64::new(len),
                rustix::fs::Advice::DontNeed,
            );
        };
        // A probe makes the kernel read the page, so each page is probed once after it was dropped.
        drop_pages(0, size);
        if is_cached(&source, ByteRange::new(0, 1)) {
            eprintln!("skipped: this file system keeps its pages");
            return;
        }
        for from in [0, size * 3 / 8, size * 3 / 4] {
            drop_pages(from, size / 4);
            assert!(!is_cached(&source, chunk), "without the pages from {from}");
        }
    }
}
