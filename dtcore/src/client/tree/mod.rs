//! A remote directory to download: how, where to, and its start.

mod fetch;
mod output;
mod plan;
mod run;
mod totals;

use std::ffi::OsString;
use std::path::PathBuf;

use super::options::Options;
use super::runtime::Threads;
use super::transfer::Transfer;
use crate::event::TreeReport;
use crate::manifest::StreamCount;
use crate::sink::{Durability, Resume};

/// A remote directory to download, with all that is in it; clones start another download each.
///
/// ```no_run
/// # async fn example(client: dtcore::Client) -> Result<(), Box<dyn std::error::Error>> {
/// let report = client.download_tree("photos").to_path("photos").await?;
/// println!("{} files, {} unchanged, {} failed", report.files, report.unchanged, report.failures.len());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a download does not start before its output is chosen"]
pub struct TreeDownload {
    options: Options,
    wishes: TreeOptions,
    threads: Threads,
}

/// How a directory is downloaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TreeOptions {
    /// Whether names that begin with a dot are downloaded too.
    pub(crate) hidden: bool,
    /// Whether nothing is written.
    pub(crate) dry_run: bool,
    /// Whether files that exist and differ are left alone.
    pub(crate) keep_existing: bool,
}

impl TreeDownload {
    pub(super) fn new(name: OsString, options: Options, threads: Threads) -> Self {
        let wishes = TreeOptions { hidden: true, dry_run: false, keep_existing: false };
        Self { options: Options { name, ..options }, wishes, threads }
    }

    /// The number of streams, instead of the client's: so many small transfers run at once, and large files are split over as many.
    pub fn streams(mut self, streams: StreamCount) -> Self {
        self.options.settings.streams = streams;
        self
    }

    /// Whether names that begin with a dot are downloaded too, which is the default.
    pub fn hidden(mut self, hidden: bool) -> Self {
        self.wishes.hidden = hidden;
        self
    }

    /// Whether nothing is written, and the report says what would be; not by default.
    pub fn dry_run(mut self, dry_run: bool) -> Self {
        self.wishes.dry_run = dry_run;
        self
    }

    /// Whether files that exist here and differ are replaced, which is the default; else they are skipped.
    pub fn overwrite(mut self, overwrite: bool) -> Self {
        self.wishes.keep_existing = !overwrite;
        self
    }

    /// Whether what an earlier download left of large files is resumed, which is the default.
    pub fn resume(mut self, resume: bool) -> Self {
        self.options.resume = if resume { Resume::Allowed } else { Resume::Refused };
        self
    }

    /// Whether files are on the disk before success is reported; not by default.
    pub fn fsync(mut self, fsync: bool) -> Self {
        self.options.settings.durability = if fsync { Durability::Synced } else { Durability::Cached };
        self
    }

    /// Whether files and directories get the modification times of the remote ones, which is the default. Without them, unchanged files are not
    /// recognised by the next download.
    pub fn preserve_times(mut self, preserve: bool) -> Self {
        self.options.preserve.times = preserve;
        self
    }

    /// Whether files and directories get the permission bits of the remote ones; never setuid, setgid or sticky. Not by default.
    pub fn preserve_mode(mut self, preserve: bool) -> Self {
        self.options.preserve.mode = preserve;
        self
    }

    /// Downloads into the directory `path`, which is created if it does not exist.
    ///
    /// Files that have the size and modification time of the remote ones are skipped. Each file is put in place in one step, when it is
    /// verified; large ones resume. What cannot be downloaded is in the report, and the rest is downloaded. Nothing is written outside
    /// `path`: links that lead out are not followed, and links in the remote directory that lead out of it are skipped.
    ///
    /// # Errors
    /// The transfer returns a [`TransferError`](crate::TransferError) if the server cannot be reached, does not list the directory, or `path`
    /// cannot be used.
    pub fn to_path(self, path: impl Into<PathBuf>) -> Transfer<TreeReport> {
        let Self { options, wishes, threads } = self;
        let path = path.into();
        Transfer::start(&threads, move |events, cancel| run::run(options, wishes, path, events, cancel))
    }
}
