//! What of a tree was found, and what has become of it.

use std::path::{Path, PathBuf};

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
    counts: Lock<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// What has become of the entries.
    report: TreeReport,
    is_listed: bool,
    found_files: u64,
    found_bytes: u64,
    /// Bytes of files that are being received.
    partial: u64,
}

impl Totals {
    pub(super) fn new(events: EventSender, started: Instant) -> Self {
        Self { events, started, counts: Lock::default() }
    }

    pub(super) fn found(&self, size: u64) {
        let mut counts = self.counts.lock();
        counts.found_files += 1;
        counts.found_bytes = counts.found_bytes.saturating_add(size);
    }

    pub(super) fn listed(&self) {
        self.counts.lock().is_listed = true;
    }

    pub(super) fn unchanged(&self) {
        self.counts.lock().report.unchanged += 1;
    }

    pub(super) fn directory(&self) {
        self.counts.lock().report.directories += 1;
    }

    pub(super) fn link(&self) {
        self.counts.lock().report.links += 1;
    }

    /// These files are in place.
    pub(super) fn done(&self, files: Vec<(PathBuf, u64)>) {
        {
            let mut counts = self.counts.lock();
            for (_, bytes) in &files {
                counts.report.files += 1;
                counts.report.bytes = counts.report.bytes.saturating_add(*bytes);
            }
        }
        if !files.is_empty() {
            self.events.try_emit(Event::FilesDone { files });
        }
    }

    /// Something is left out for a reason, which is no failure.
    pub(super) fn skipped(&self, path: &Path, reason: &'static str) {
        self.counts.lock().report.skipped += 1;
        self.events.try_emit(Event::EntrySkipped { path: path.to_owned(), reason });
    }

    pub(super) fn failed(&self, path: &Path, reason: String, is_local: bool) {
        let report = &mut self.counts.lock().report;
        report.failed += 1;
        if report.failures.len() < MAX_FAILURES {
            report.failures.push(FailedEntry { path: path.to_owned(), reason, is_local });
        }
    }

    /// A file of which `before` bytes were received has `now`.
    pub(super) fn partial(&self, before: u64, now: u64) {
        let mut counts = self.counts.lock();
        counts.partial = counts.partial.saturating_add(now).saturating_sub(before);
    }

    pub(super) fn emit_progress(&self) {
        let counts = self.counts.lock();
        let report = &counts.report;
        self.events.try_emit(Event::Tree(TreeProgress {
            files: report.files + report.unchanged,
            found_files: counts.found_files,
            bytes: report.bytes.saturating_add(counts.partial),
            found_bytes: counts.found_bytes,
            is_listing: !counts.is_listed,
            failed: report.failed,
            elapsed: self.started.elapsed(),
        }));
    }

    pub(super) fn report(&self) -> TreeReport {
        TreeReport { elapsed: self.started.elapsed(), ..self.counts.lock().report.clone() }
    }
}
