//! One file to upload: how, from where, and its start.

mod run;
mod source;
mod streams;

use std::ffi::OsString;
use std::io::Read;
use std::path::PathBuf;

use super::options::Options;
use super::runtime::Threads;
use super::transfer::Transfer;
use crate::event::UploadReport;
use crate::manifest::StreamCount;
use crate::proto::v2::UploadOptions;
use source::Input;

/// One file to upload. The methods that say what to send start the transfer; clones start another one each.
///
/// ```no_run
/// # async fn example(client: dtcore::Client) -> Result<(), Box<dyn std::error::Error>> {
/// let report = client.upload("backup/today.tar").from_path("today.tar").await?;
/// println!("{} bytes in {:?}", report.bytes, report.elapsed);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "an upload does not start before its source is chosen"]
pub struct Upload {
    options: Options,
    wishes: UploadOptions,
    threads: Threads,
}

impl Upload {
    pub(super) fn new(name: OsString, options: Options, threads: Threads) -> Self {
        Self { options: Options { name, ..options }, wishes: UploadOptions::default(), threads }
    }

    /// The number of streams, instead of the client's.
    pub fn streams(mut self, streams: StreamCount) -> Self {
        self.options.settings.streams = streams;
        self
    }

    /// Whether a remote file of this name is replaced, if the server permits it; by default the transfer fails with
    /// [`ErrorKind::OutputExists`](crate::ErrorKind::OutputExists).
    pub fn overwrite(mut self, overwrite: bool) -> Self {
        self.wishes.overwrite = overwrite;
        self
    }

    /// Whether what an earlier upload left on the server is resumed, which is the default.
    pub fn resume(mut self, resume: bool) -> Self {
        self.wishes.restart = !resume;
        self
    }

    /// Whether the file is on the server's disk before success is reported; not by default.
    pub fn fsync(mut self, fsync: bool) -> Self {
        self.wishes.sync = fsync;
        self
    }

    /// Whether the remote file gets the modification time of the source, which is the default.
    pub fn preserve_times(mut self, preserve: bool) -> Self {
        self.wishes.now = !preserve;
        self
    }

    /// Whether the remote file gets the permission bits of the source; never setuid, setgid or sticky. Not by default.
    pub fn preserve_mode(mut self, preserve: bool) -> Self {
        self.options.preserve.mode = preserve;
        self
    }

    /// Whether a file that only grows during the transfer is sent at the length that it had at the start, which is the default. Else,
    /// as with any other change, the transfer fails with [`ErrorKind::SourceChanged`](crate::ErrorKind::SourceChanged).
    pub fn growth(mut self, allowed: bool) -> Self {
        self.options.may_grow = allowed;
        self
    }

    /// Uploads the file at `path`. A pipe or device is read as by [`from_reader`](Self::from_reader).
    ///
    /// The server receives into a part file beside its place, which it puts there in one step once everything is verified. An upload
    /// that was interrupted resumes when it is started again.
    ///
    /// # Errors
    /// The transfer returns any [`TransferError`](crate::TransferError); what was at the name is then unchanged.
    pub fn from_path(self, path: impl Into<PathBuf>) -> Transfer<UploadReport> {
        self.start(Input::Path(path.into()))
    }

    /// Uploads what `reader` delivers until its end.
    ///
    /// As its length is not known before, it is read into an unnamed file in the system's directory for temporary files first. It cannot be
    /// resumed.
    ///
    /// # Errors
    /// As for [`from_path`](Self::from_path); [`ErrorKind::LocalFile`](crate::ErrorKind::LocalFile) if the reader fails.
    pub fn from_reader(self, reader: impl Read + Send + 'static) -> Transfer<UploadReport> {
        self.start(Input::Reader(Box::new(reader)))
    }

    fn start(self, input: Input) -> Transfer<UploadReport> {
        let Self { options, wishes, threads } = self;
        Transfer::start(&threads, |events, cancel| run::run(options, wishes, input, events, cancel))
    }
}
