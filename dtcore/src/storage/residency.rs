//! Keeps a cold disk from stalling the threads that serve all other transfers.
//!
//! `sendfile` waits for pages that are not in memory, and with it every task of its thread. So each chunk is
//! probed first, and read into the page cache on a thread that may block when it is not there yet.

use std::io::IoSliceMut;
use std::sync::Arc;

use rustix::io::{Errno, ReadWriteFlags};
use tokio::task::{JoinHandle, spawn_blocking};

use super::SourceFile;
use crate::plan::ByteRange;

/// How much is read at once: large enough for the disk to work in long runs.
const READ: u64 = 256 << 10;

/// The state of one stream's way through a file.
#[derive(Debug)]
pub(crate) struct Residency {
    source: Arc<SourceFile>,
    /// The chunk that is being read ahead while the one before it is sent.
    ahead: Option<JoinHandle<()>>,
}

impl Residency {
    pub(crate) fn new(source: Arc<SourceFile>) -> Self {
        Self { source, ahead: None }
    }

    /// Waits until `chunk` is in memory, and has `next` read meanwhile if the file turns out to be cold.
    ///
    /// A read error is not reported here: `sendfile` meets it again.
    ///
    /// # Cancel safety
    /// The chunk being read is still read, by a thread of its own, and nothing waits for it.
    pub(crate) async fn warm(&mut self, chunk: ByteRange, next: ByteRange) {
        let was_ahead = self.ahead.is_some();
        if let Some(ahead) = self.ahead.take() {
            let _ = ahead.await;
        }
        let mut cold = was_ahead;
        if !is_resident(&self.source, chunk) {
            cold = true;
            let _ = self.read(chunk).await;
        }
        if cold && !is_resident(&self.source, next) {
            self.ahead = Some(self.read(next));
        }
    }

    fn read(&self, chunk: ByteRange) -> JoinHandle<()> {
        let source = Arc::clone(&self.source);
        spawn_blocking(move || read_into_cache(&source, chunk))
    }
}

/// Whether the chunk's last page is in memory; those before it were read before it.
fn is_resident(source: &SourceFile, chunk: ByteRange) -> bool {
    let Some(last) = chunk.end().checked_sub(1) else { return true };
    if chunk.is_empty() {
        return true;
    }
    let mut byte = [0];
    let probe = rustix::io::preadv2(source, &mut [IoSliceMut::new(&mut byte)], last, ReadWriteFlags::NOWAIT);
    // A file system that cannot answer (EOPNOTSUPP) is one in memory, or one that must be taken as it is.
    probe != Err(Errno::AGAIN)
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
        let mut residency = Residency::new(Arc::clone(&source));
        residency.warm(first, second).await;
        assert!(is_resident(&source, first));
        residency.warm(second, ByteRange::new(size, size)).await;
        assert!(is_resident(&source, second));
    }
}
