//! One file to download: say how and where to, start it, watch it, await it.

use std::ffi::OsString;
use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::AsyncWrite;

use super::destination::{self, ByteStream};
use super::negotiate;
use super::options::{ComputeMd5, Options};
use super::runtime::Threads;
use super::transfer::Transfer;
use crate::digest::Checksum;
use crate::error::TransferError;
use crate::event::Report;
use crate::manifest::StreamCount;
use crate::num::to_u64;
use crate::receive::Verification;
use crate::sink::{Clobber, Durability, Engine, MemoryStore, Output, Resume};

/// One file to download. It starts when it is told where to put the file.
///
/// ```
/// # async fn example(client: dtcore::Client) -> Result<(), Box<dyn std::error::Error>> {
/// let download = client.download("remote/path").overwrite(false).fsync(true);
/// let report = download.to_path("out.bin").await?;
/// println!("{} bytes in {:?}", report.bytes, report.elapsed);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "a download starts when it is told where to put the file"]
pub struct Download {
    name: OsString,
    options: Options,
    threads: Threads,
}

impl Download {
    pub(super) fn new(name: OsString, options: Options, threads: Threads) -> Self {
        Self { name, options, threads }
    }

    /// The number of streams, instead of the client's.
    pub fn streams(mut self, streams: StreamCount) -> Self {
        self.options.streams = streams;
        self
    }

    /// How the bytes get into the output file.
    pub fn engine(mut self, engine: Engine) -> Self {
        self.options.engine = engine;
        self
    }

    /// Whether an output that exists is replaced, which is the default; else the transfer fails with
    /// [`TransferError::OutputExists`], also for an output that appears during the transfer.
    pub fn overwrite(mut self, overwrite: bool) -> Self {
        self.options.clobber = if overwrite { Clobber::Replace } else { Clobber::Refuse };
        self
    }

    /// Whether output name and bytes are on the disk before success is reported; not by default.
    pub fn fsync(mut self, fsync: bool) -> Self {
        self.options.durability = if fsync { Durability::Synced } else { Durability::Cached };
        self
    }

    /// Whether what an earlier transfer left is resumed, which is the default.
    pub fn resume(mut self, resume: bool) -> Self {
        self.options.resume = if resume { Resume::Allowed } else { Resume::Refused };
        self
    }

    /// Whether the file's MD5 is computed and compared with the server's too. Protocol 1 does so anyway.
    pub fn md5(mut self, md5: bool) -> Self {
        self.options.md5 = if md5 { ComputeMd5::Yes } else { ComputeMd5::No };
        self
    }

    /// Requires this digest of the file, besides the server's.
    pub fn checksum(mut self, checksum: Checksum) -> Self {
        self.options.checksum = Some(checksum);
        self
    }

    /// Trusts the server and compares nothing: to measure what verification costs.
    #[cfg(feature = "bench")]
    #[doc(hidden)]
    pub fn unverified(mut self) -> Self {
        self.options.verification = Verification::Off;
        self
    }

    /// Downloads to the file `path`.
    ///
    /// The file is received into a part file beside it and replaced in one step, when everything is verified. A path that is a
    /// device or a pipe is written in order.
    pub fn to_path(self, path: impl Into<PathBuf>) -> Transfer<Report> {
        let path = path.into();
        self.start(Output::Path(path), |report| async { Ok(report) })
    }

    /// Downloads to `writer`, in order, and returns it at the end.
    ///
    /// The bytes are written before the complete file could be verified: only the success of the transfer says that they are right.
    /// Bytes that arrive before their turn wait in memory, at most 32 MiB; in protocol 1 in an unnamed file in the system's
    /// directory for temporary files. The writer is used, and may block, on a thread of its own.
    pub fn to_writer<W: Write + Send + 'static>(self, writer: W) -> Transfer<(Report, W)> {
        let (lent, returned) = destination::lend(writer);
        let output = Output::Writer(Box::new(lent), "the output");
        self.start(output, |report| async { Ok((report, returned.wait().await?)) })
    }

    /// As [`to_writer`](Self::to_writer), to an asynchronous writer. It is flushed, and not shut down.
    pub fn to_async_writer<W>(self, writer: W) -> Transfer<(Report, W)>
    where
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let (pipe, copying) = destination::pipe_to(writer);
        let (returned, copied) = destination::Returned::channel();
        self.threads.spawn(async move { copied.put(copying.await) });
        let output = Output::Writer(Box::new(pipe), "the output");
        self.start(output, |report| async { Ok((report, returned.wait().await?)) })
    }

    /// Downloads into memory, at most `limit` bytes.
    ///
    /// The transfer fails with [`TransferError::TooLarge`] if the file is larger.
    pub fn bytes(self, limit: usize) -> Transfer<Bytes> {
        let limit = to_u64(limit);
        let memory = Arc::new(MemoryStore::new(limit));
        self.start(Output::Memory(Arc::clone(&memory), limit), |report| async move {
            let bytes = memory.take(report.bytes);
            let failed = |error| TransferError::local("read back", "memory", report.bytes, error);
            bytes.map(Bytes::from).map_err(failed)
        })
    }

    /// Downloads as a stream of bytes, in order.
    ///
    /// The bytes are delivered before the complete file could be verified: only the end of the stream without an error says that they
    /// are right.
    pub fn into_stream(self) -> ByteStream {
        let (pipe, receiver) = destination::pipe();
        let transfer =
            self.start(Output::Writer(Box::new(pipe), "the stream"), |report| async { Ok(report) });
        ByteStream::new(receiver, transfer)
    }

    /// Starts the transfer, on the client's threads.
    ///
    /// Sockets and files are worked on there and never on the caller's executor, whichever that is.
    fn start<T, F>(self, output: Output, then: impl FnOnce(Report) -> F + Send + 'static) -> Transfer<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, TransferError>> + Send,
    {
        let Self { name, options, threads } = self;
        Transfer::start(&threads, |events, cancel| async move {
            then(negotiate::run(Options { name, ..options }, output, events, cancel).await?).await
        })
    }
}

impl fmt::Debug for Download {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Download")
            .field("name", &self.name)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
