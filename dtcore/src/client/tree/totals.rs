//! What of a tree was found, and what has become of it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::time::Instant;

use crate::event::{Event, EventSender, FailedEntry, TreeProgress, TreeReport};
use crate::sync::Lock;

/// The most failures that are reported by name.
const MAX_FAILURES: usize = 10_000;

/// The counters of a tree, and its failures.
#[derive(Debug)]
pub(super) struct Totals {
    events: EventSender,
    started: Instant,
    counts: Lock<TreeReport>,
    is_listing: AtomicBool,
    found_files: AtomicU64,
    found_bytes: AtomicU64,
    /// Bytes of files that are being received.
    partial: AtomicU64,
}

impl Totals {
    pub(super) fn new(events: EventSender, started: Instant) -> Self {
        Self {
            events,
            started,
            counts: Lock::default(),
            is_listing: AtomicBool::new(true),
            found_files: AtomicU64::new(0),
            found_bytes: AtomicU64::new(0),
            partial: AtomicU64::new(0),
        }
    }

    pub(super) fn found(&self, size: u64) {
        self.found_files.fetch_add(1, Ordering::Relaxed);
        self.found_bytes.fetch_add(size, Ordering::Relaxed);
    }

    pub(super) fn listed(&self) {
        self.is_listing.store(false, Ordering::Relaxed);
    }

    pub(super) fn unchanged(&self) {
        self.counts.lock().unchanged += 1;
    }

    pub(super) fn directory(&self) {
        self.counts.lock().directories += 1;
    }

    pub(super) fn link(&self) {
        self.counts.lock().links += 1;
    }

    /// These files are in place.
    pub(super) fn done(&self, files: Vec<(PathBuf, u64)>) {
        {
            let mut counts = self.counts.lock();
            for (_, bytes) in &files {
                counts.files += 1;
                counts.bytes += bytes;
            }
        }
        if !files.is_empty() {
            self.events.try_emit(Event::FilesDone { files });
        }
    }

    /// Something is left out for a reason, which is no failure.
    pub(super) fn skipped(&self, path: &Path, reason: &'static str) {
        self.counts.lock().skipped += 1;
        self.events.try_emit(Event::EntrySkipped { path: path.to_owned(), reason });
    }

    pub(super) fn failed(&self, path: &Path, reason: String, is_local: bool) {
        let mut counts = self.counts.lock();
        counts.failed += 1;
        if counts.failures.len() < MAX_FAILURES {
            counts.failures.push(FailedEntry { path: path.to_owned(), reason, is_local });
        }
    }

    /// A file that is being received has so many bytes more, or fewer.
    pub(super) fn partial(&self, before: u64, now: u64) {
        self.partial.fetch_add(now, Ordering::Relaxed);
        self.partial.fetch_sub(before, Ordering::Relaxed);
    }

    pub(super) fn emit_progress(&self) {
        let counts = self.counts.lock();
        self.events.try_emit(Event::Tree(TreeProgress {
            files: counts.files + counts.unchanged,
            found_files: self.found_files.load(Ordering::Relaxed),
            bytes: counts.bytes + self.partial.load(Ordering::Relaxed),
            found_bytes: self.found_bytes.load(Ordering::Relaxed),
            is_listing: self.is_listing.load(Ordering::Relaxed),
            failed: counts.failed,
            elapsed: self.started.elapsed(),
        }));
    }

    pub(super) fn report(&self) -> TreeReport {
        TreeReport { elapsed: self.started.elapsed(), ..self.counts.lock().clone() }
    }
}
