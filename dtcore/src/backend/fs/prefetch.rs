//! Keeps a cold disk from stalling the threads that serve all other transfers.
//!
//! `sendfile` waits for pages that are not in memory, and with it every task of its thread. So each chunk is
//! probed first, and read into the page cache on a thread that may block when it is not there yet. The probe is a
//! sample: most waits for the disk are kept off those threads, not every one.

use std::io::IoSliceMut;
use std::sync::Arc;

use rustix::io::{Errno, ReadWriteFlags};
use tokio::task::{JoinHandle, spawn_blocking};

use super::SourceFile;
use crate::manifest::ByteRange;
use crate::sys::filesystem::is_in_memory;

/// How much is read at once: large enough for the disk to work in long runs.
const READ: u64 = 256 << 10;

/// The state of one stream's way through a file.
#[derive(Debug)]
pub(crate) struct Prefetcher {
    source: Arc<SourceFile>,
    /// The chunk that is being read ahead while the one before it is sent.
    ahead: Option<JoinHandle<()>>,
}

impl Prefetcher {
    pub(crate) fn new(source: Arc<SourceFile>) -> Self {
        Self { source, ahead: None }
    }

    /// Waits until `chunk` is in memory, and has `next` read meanwhile if the file turns out to be cold.
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
        if !is_cached(&self.source, chunk) {
            cold = true;
            let _ = self.read(chunk).await;
        }
        if cold && !is_cached(&self.source, next) {
            self.ahead = Some(self.read(next));
        }
    }

    fn read(&self, chunk: ByteRange) -> JoinHandle<()> {
        let source = Arc::clone(&self.source);
        spawn_blocking(move || read_into_cache(&source, chunk))
    }
}

/// Whether the chunk's first, middle and last pages are in memory, from which that of the others is inferred.
///
/// A chunk is read as a whole, but a kernel short of memory drops single pages again. Where it dropped others than
/// these three, `sendfile` waits for the disk: late, never wrong. Asking for every page would cost 256 calls.
fn is_cached(source: &SourceFile, chunk: ByteRange) -> bool {
    if chunk.is_empty() {
        return true;
    }
    let (first, last) = (chunk.start(), chunk.end().saturating_sub(1));
    [first, first.midpoint(last), last].into_iter().all(|offset| {
        let mut byte = [0];
        let into = &mut [IoSliceMut::new(&mut byte)];
        let probe = rustix::io::preadv2(source, into, offset, ReadWriteFlags::NOWAIT);
        match probe {
            Err(Errno::AGAIN) => false,
            // Who cannot answer is in memory altogether, or somewhere that may be waited for: NFS, CIFS, FUSE.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => is_in_memory(source).unwrap_or(false),
            Ok(_) | Err(_) => true,
        }
    })
}

/// Reads the chunk, for the page cache's sake only.
fn read_into_cache(source: &SourceFile, chunk: ByteRange) {
    let mut buffer = vec![0; usize::try_from(READ.min(chunk.len())).unwrap_or(4096)];
    let mut offset = chunk.start();
    while offset < chunk.end() {
        match rustix::io::pread(source, &mut *buffer, offset) {
            Ok(0) => return,
            Ok(n) => offset += u64::try_from(n).unwrap_or(READ),
            Err(Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::num::NonZeroU64;

    #[tokio::test]
    async fn a_cold_chunk_is_in_memory_afterwards() {
        let file = tempfile::tempfile().unwrap();
        let size = 4 << 20;
        file.set_len(size).unwrap();
        file.sync_all().unwrap();
        let source = Arc::new(SourceFile::new(file).unwrap());
        // Not every file system drops pages on request; where it does not, nothing is cold here.
        let _ = rustix::fs::fadvise(&*source, 0, None, rustix::fs::Advice::DontNeed);
        let (first, second) = (ByteRange::new(0, size / 2), ByteRange::new(size / 2, size));
        let mut prefetcher = Prefetcher::new(Arc::clone(&source));
        prefetcher.ensure_cached(first, second).await;
        assert!(is_cached(&source, first));
        prefetcher.ensure_cached(second, ByteRange::new(size, size)).await;
        assert!(is_cached(&source, second));
    }

    #[test]
    fn who_cannot_say_is_resident_only_in_memory() {
        let resident = |file| is_cached(&SourceFile::new(file).unwrap(), ByteRange::new(0, 10));
        assert!(!resident(std::fs::File::open("/proc/self/limits").unwrap()));
        assert!(resident(tempfile::tempfile_in("/dev/shm").unwrap()));
    }

    #[test]
    fn a_chunk_that_lost_a_part_is_cold() {
        let size = 1 << 20;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; size]).unwrap();
        // Only what is on the disk can be dropped from memory.
        file.sync_all().unwrap();
        let source = SourceFile::new(file).unwrap();
        let size = u64::try_from(size).unwrap();
        let chunk = ByteRange::new(0, size);
        let drop_pages = |from: u64, len: u64| {
            read_into_cache(&source, chunk);
            let _ = rustix::fs::fadvise(&source, from, NonZeroU64::new(len), rustix::fs::Advice::DontNeed);
        };
        // A probe makes the kernel read the page, so each is asked for once after it was dropped.
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
