//! One file to download: how, where to, and its start.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::io::AsyncWrite;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::destination::{self, ByteStream, OUTPUT};
use super::negotiate;
use super::options::Options;
use super::runtime::Threads;
use super::transfer::Transfer;
use crate::digest::Checksum;
use crate::event::Report;
use crate::failure::Failure;
use crate::manifest::StreamCount;
use crate::num::to_u64;
use crate::receive::ComputeMd5;
use crate::sink::{Clobber, Durability, Engine, Output, ReorderBuffer, Resume};

/// A transfer itself, whatever becomes of what it delivers.
type Running = BoxFuture<'static, Result<Report, Failure>>;

/// One file to download. The methods that say where to put it start the transfer; clones start another one each.
///
/// ```
/// # async fn example(client: dtcore::Client) -> Result<(), Box<dyn std::error::Error>> {
/// let download = client.download("remote/path").overwrite(false).fsync(true);
/// let report = download.to_path("out.bin").await?;
/// println!("{} bytes in {:?}", report.bytes, report.elapsed);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a download does not start before its output is chosen"]
pub struct Download {
    options: Options,
    threads: Threads,
}

impl Download {
    pub(super) fn new(name: OsString, options: Options, threads: Threads) -> Self {
        Self { options: Options { name, ..options }, threads }
    }

    /// The number of streams, instead of the client's.
    pub fn streams(mut self, streams: StreamCount) -> Self {
        self.options.settings.streams = streams;
        self
    }

    /// How the bytes get into the output file.
    pub fn engine(mut self, engine: Engine) -> Self {
        self.options.settings.engine = engine;
        self
    }

    /// Whether an output that exists is replaced, which is the default; else the transfer fails with
    /// [`ErrorKind::OutputExists`](crate::ErrorKind::OutputExists), also for an output that appears during the transfer.
    pub fn overwrite(mut self, overwrite: bool) -> Self {
        self.options.clobber = if overwrite { Clobber::Replace } else { Clobber::Refuse };
        self
    }

    /// Whether output name and bytes are on the disk before success is reported; not by default.
    pub fn fsync(mut self, fsync: bool) -> Self {
        self.options.settings.durability = if fsync { Durability::Synced } else { Durability::Cached };
        self
    }

    /// Whether what an earlier transfer left is resumed, which is the default.
    pub fn resume(mut self, resume: bool) -> Self {
        self.options.resume = if resume { Resume::Allowed } else { Resume::Refused };
        self
    }

    /// Whether a remote file that only grows during the transfer, as a log does, is delivered at the length that it had at the start,
    /// which is the default; [`Event::Grown`](crate::Event::Grown) reports it. Else the transfer fails with
    /// [`ErrorKind::SourceChanged`](crate::ErrorKind::SourceChanged), as it does for every other change.
    ///
    /// Every block is compared with a digest of what was sent, and in the end the whole with a digest for which the server reads the file
    /// again. Bytes that were overwritten in the meantime are noticed by that; those overwritten before they were sent are not.
    pub fn growth(mut self, allowed: bool) -> Self {
        self.options.may_grow = allowed;
        self
    }

    /// Whether the output gets the modification time of the remote file, which is the default. Protocol 1 does not report it.
    pub fn preserve_times(mut self, preserve: bool) -> Self {
        self.options.preserve.times = preserve;
        self
    }

    /// Whether the output gets the permission bits of the remote file; never setuid, setgid or sticky. By default it has those of the
    /// file that it replaces, or those that the umask leaves.
    pub fn preserve_mode(mut self, preserve: bool) -> Self {
        self.options.preserve.mode = preserve;
        self
    }

    /// Whether the file's MD5 is computed and compared with the server's too. Protocol 1 does so anyway.
    pub fn md5(mut self, md5: bool) -> Self {
        self.options.settings.md5 = if md5 { ComputeMd5::Yes } else { ComputeMd5::No };
        self
    }

    /// Requires this digest of the file, besides the server's.
    pub fn checksum(mut self, checksum: Checksum) -> Self {
        self.options.settings.checksum = Some(checksum);
        self
    }

    /// Trusts the server and compares nothing: to measure what verification costs.
    #[cfg(feature = "bench")]
    #[doc(hidden)]
    pub fn unverified(mut self) -> Self {
        self.options.settings.verification = crate::receive::Verification::Off;
        self
    }

    /// Downloads to the file `path`.
    ///
    /// The file is received into a part file beside it, which replaces it in one step once everything is verified. A path that is
    /// a device or a pipe is written in order.
    ///
    /// # Errors
    /// The transfer returns any [`TransferError`](crate::TransferError); what was at `path` is then unchanged.
    pub fn to_path(self, path: impl Into<PathBuf>) -> Transfer<Report> {
        let path = path.into();
        self.start(Output::Path(path), |running, _| running)
    }

    /// Downloads to `writer`, in order, flushes it, and returns it at the end.
    ///
    /// The bytes are written before the complete file can be verified: only the success of the transfer says that they are right.
    /// Bytes that arrive before their turn wait in memory, at most 32 MiB; in protocol 1 in an unnamed file in the system's
    /// directory for temporary files. The writer is used, and may block, on a thread of its own; a cancelled transfer does not
    /// wait for a call that blocks.
    ///
    /// # Errors
    /// As for [`to_path`](Self::to_path). An error or panic of the writer is
    /// [`ErrorKind::LocalFile`](crate::ErrorKind::LocalFile) or [`ErrorKind::DiskFull`](crate::ErrorKind::DiskFull). The writer is
    /// dropped then.
    pub fn to_writer<W: Write + Send + 'static>(self, writer: W) -> Transfer<(Report, W)> {
        let (lent, returned) = destination::lend(writer);
        let output = Output::Writer(Box::new(lent), OUTPUT);
        self.start(output, |running, _| async { returned.with(running.await).await })
    }

    /// As [`to_writer`](Self::to_writer), to an asynchronous writer. It is flushed, and not shut down.
    ///
    /// It is polled on the threads of the client, so a socket of another runtime works as long as that runtime runs.
    ///
    /// # Errors
    /// As for [`to_writer`](Self::to_writer).
    pub fn to_async_writer<W>(self, writer: W) -> Transfer<(Report, W)>
    where
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let (pipe, pieces) = destination::pipe();
        let output = Output::Writer(Box::new(pipe), OUTPUT);
        self.start(output, |mut running, cancel| async move {
            let mut copying = Box::pin(destination::copy(pieces, writer));
            let report = tokio::select! {
                // First, because a transfer whose pipe breaks knows less than the writer.
                biased;
                copied = &mut copying => match copied {
                    Ok(writer) => return Ok((running.await?, writer)),
                    Err(failure) => {
                        cancel.cancel();
                        let _ = running.await;
                        return Err(failure);
                    }
                },
                outcome = &mut running => outcome?,
            };
            tokio::select! {
                copied = copying => Ok((report, copied?)),
                () = cancel.cancelled() => Err(Failure::Cancelled),
            }
        })
    }

    /// Downloads into memory, at most `limit` bytes.
    ///
    /// # Errors
    /// As for [`to_path`](Self::to_path); [`ErrorKind::TooLarge`](crate::ErrorKind::TooLarge) for a file of more than `limit`
    /// bytes, of which nothing is received if the server reports its size.
    pub fn bytes(self, limit: usize) -> Transfer<Bytes> {
        let limit = to_u64(limit);
        let memory = Arc::new(ReorderBuffer::for_memory(limit));
        self.start(Output::Memory(Arc::clone(&memory), limit), |running, _| async move {
            let size = running.await?.bytes;
            let failed = |error| Failure::System { action: "get memory for the file", source: error };
            let taking = spawn_blocking(move || memory.take(size));
            taking.await.map_err(|error| failed(error.into()))?.map(Bytes::from).map_err(failed)
        })
    }

    /// Downloads as a stream of bytes, in order.
    ///
    /// The bytes are delivered before the complete file can be verified: only the end of the stream without an error says that
    /// they are right.
    ///
    /// # Errors
    /// The last item of the stream is an error as for [`to_path`](Self::to_path).
    pub fn into_stream(self) -> ByteStream {
        let (pipe, pieces) = destination::pipe();
        let transfer = self.start(Output::Writer(Box::new(pipe), "the stream"), |running, _| running);
        ByteStream::new(pieces, transfer)
    }

    /// Starts the transfer on the client's threads, and has `deliver` finish it.
    ///
    /// Sockets and files are used there and never on the caller's executor, whichever that is.
    fn start<T, F>(
        self,
        output: Output,
        deliver: impl FnOnce(Running, CancellationToken) -> F + Send + 'static,
    ) -> Transfer<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        let Self { options, threads } = self;
        Transfer::start(&threads, |events, cancel| {
            deliver(Box::pin(negotiate::run(options, output, events, cancel.clone())), cancel)
        })
    }
}
