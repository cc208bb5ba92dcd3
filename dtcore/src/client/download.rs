//! The façade of the requester role: say what to fetch, start it, watch it, await it.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::negotiate;
use crate::client::address::ServerAddress;
use crate::client::destination::Output;
#[cfg(feature = "bench")]
use crate::client::options::Verification;
use crate::client::options::{ComputeMd5, Options, ProtocolChoice};
use crate::digest::Checksum;
use crate::error::TransferError;
use crate::event::{self, EventSender, Events, Report};
use crate::manifest::StreamCount;
use crate::sink::{Clobber, Durability, Engine, Resume};

/// One file to fetch.
///
/// ```
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let report = dtcore::Download::new("files.example:9000".parse()?, "remote/path", "out.bin")
///     .streams(dtcore::StreamCount::new(8)?)
///     .run()
///     .await?;
/// println!("{} bytes in {:?}", report.bytes, report.elapsed);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Download {
    options: Options,
    output: Output,
}

/// A time that is as good as for ever, and can still be added to an instant.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

impl Download {
    /// The file `name` of `server`, to be put at `output`.
    ///
    /// The name is the server's: relative to the folder it serves, with or without a leading slash. An output that is
    /// a device or a pipe is written in order; any other is received into a part file beside it and replaced, in one
    /// step, when all is verified.
    pub fn new(server: ServerAddress, name: impl Into<OsString>, output: impl Into<PathBuf>) -> Self {
        Self::with_output(server, name.into(), Output::Path(output.into()))
    }

    /// The file `name` of `server`, to be written to `writer` in order.
    ///
    /// The bytes are written as they come, before the whole file could be verified: only success of the transfer says
    /// that they were right. Bytes that come before their turn wait in an unnamed file in the system's folder for
    /// temporary files, in protocol 2 in memory, at most 32 MiB. The writer is used, and may block, on a thread of the transfer's own.
    pub fn to_writer(
        server: ServerAddress,
        name: impl Into<OsString>,
        writer: impl Write + Send + 'static,
    ) -> Self {
        Self::with_output(server, name.into(), Output::Writer(Box::new(writer)))
    }

    fn with_output(server: ServerAddress, name: OsString, output: Output) -> Self {
        let options = Options::new(server, name);
        Self { options, output }
    }

    /// Over how many streams the file comes; 8 unless told.
    pub fn streams(mut self, streams: StreamCount) -> Self {
        self.options.streams = streams;
        self
    }

    /// Which protocol is spoken; protocol 2 where the server has it, unless told.
    pub fn protocol(mut self, protocol: ProtocolChoice) -> Self {
        self.options.protocol = protocol;
        self
    }

    /// How the bytes get into the output file.
    pub fn engine(mut self, engine: Engine) -> Self {
        self.options.engine = engine;
        self
    }

    /// Fails with [`TransferError::OutputExists`] rather than replace an output that exists, also one that appears
    /// during the transfer.
    pub fn no_clobber(mut self) -> Self {
        self.options.clobber = Clobber::Refuse;
        self
    }

    /// Has the output on the disk, name and bytes, before success is reported.
    pub fn sync(mut self) -> Self {
        self.options.durability = Durability::Synced;
        self
    }

    /// Begins anew instead of going on with what an earlier run has left.
    pub fn no_resume(mut self) -> Self {
        self.options.resume = Resume::Refused;
        self
    }

    /// Has the file's MD5 computed and compared with the server's too. Protocol 1 does so anyway.
    pub fn md5(mut self) -> Self {
        self.options.md5 = ComputeMd5::Yes;
        self
    }

    /// Receives at most so many bytes a second, on all streams together, in either protocol. What was not used up of the
    /// last tenth of a second may come at once.
    ///
    /// In protocol 1 the server may give up a stream that takes too little: it sees no more than that there is room again
    /// in a buffer of some MiB. Over the loopback, a server that waits a minute ended streams of 20 KB a second each, and
    /// none of 25; fewer streams get more each.
    pub fn limit_rate(mut self, bytes_per_second: NonZeroU64) -> Self {
        self.options.rate_limit = Some(RateLimit::new(bytes_per_second));
        self
    }

    /// How many rounds of connecting again may fail in a row, with no block verified in between, and no more of the
    /// file's digests computed by the server; 10 unless told. A round is over when every stream has failed: while one of
    /// them is open, the others only try later and later. Protocol 1 never connects again.
    pub fn retries(mut self, rounds: u32) -> Self {
        self.options.retries = rounds;
        self
    }

    /// Takes the server's word for what it sent, and compares nothing: to measure what verification costs.
    #[cfg(feature = "bench")]
    #[doc(hidden)]
    pub fn unverified(mut self) -> Self {
        self.options.verification = Verification::Off;
        self
    }

    /// Demands this digest of the file, besides the server's.
    pub fn checksum(mut self, checksum: Checksum) -> Self {
        self.options.checksum = Some(checksum);
        self
    }

    /// How long making one connection may take; 10 seconds unless told.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.options.connect_timeout = limit.min(LONGEST);
        self
    }

    /// How long nothing may come: in protocol 1 on one stream, in protocol 2, which replaces such streams long before, on
    /// all of them; 60 seconds unless told.
    pub fn stall_timeout(mut self, limit: Duration) -> Self {
        self.options.stall_timeout = limit.min(LONGEST);
        self
    }

    /// How long the server's answer may take, and in protocol 2 how long it may get no further with the file's digests in
    /// the end; an hour unless told, because a server of protocol 1 hashes the whole file before it answers, and others'
    /// files may be hashed before it in both.
    pub fn answer_timeout(mut self, limit: Duration) -> Self {
        self.options.answer_timeout = limit.min(LONGEST);
        self
    }

    /// Starts the transfer, on threads of its own.
    ///
    /// Sockets and files are worked on there and never on the caller's executor, whichever that is.
    pub fn start(self) -> Transfer {
        let (sender, events) = event::channel();
        let (outcome_sender, outcome) = oneshot::channel();
        let cancel = CancellationToken::new();
        let token = cancel.clone();
        let spawned = thread::Builder::new().name("dt-transfer".to_owned()).spawn(move || {
            // An error only says that nobody waits for the outcome any more.
            let _ = outcome_sender.send(drive(self, sender, &token));
        });
        let failed = spawned.err().map(|source| TransferError::System { action: "start a thread", source });
        Transfer { events: Some(events), outcome, failed, cancel: CancelHandle(cancel) }
    }

    /// Runs the transfer to its end.
    ///
    /// # Errors
    /// Whatever kept the file from being delivered; an output that was there before is then untouched.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the transfer; see [`Transfer`].
    pub async fn run(self) -> Result<Report, TransferError> {
        self.start().await
    }
}

/// Runs the transfer on the thread it was given.
fn drive(
    download: Download,
    events: EventSender,
    cancel: &CancellationToken,
) -> Result<Report, TransferError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| TransferError::System { action: "start the event loop", source })?;
    let course = negotiate::run(download.options, download.output, events, cancel.clone());
    let result = runtime.block_on(course);
    // A name that is still being resolved must not hold up the end.
    runtime.shutdown_background();
    result
}

/// A running transfer: a future of its outcome.
///
/// # Cancel safety
/// Dropping it cancels the transfer; its connections are then gone a moment later, and its part file too unless it can
/// be gone on with. To wait until they are, cancel by a [`CancelHandle`] and await the transfer.
#[must_use = "a transfer that is dropped is cancelled"]
pub struct Transfer {
    events: Option<Events>,
    outcome: oneshot::Receiver<Result<Report, TransferError>>,
    /// Why it could not even be started.
    failed: Option<TransferError>,
    cancel: CancelHandle,
}

impl Transfer {
    /// The transfer's events; `None` if they were taken before.
    pub fn take_events(&mut self) -> Option<Events> {
        self.events.take()
    }

    /// A handle that cancels the transfer from elsewhere.
    pub fn cancel_handle(&self) -> CancelHandle {
        self.cancel.clone()
    }
}

impl Future for Transfer {
    type Output = Result<Report, TransferError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.outcome).poll(cx).map(|received| {
            let died = |_| TransferError::System {
                action: "go on",
                source: io::Error::other("the transfer's thread died"),
            };
            received.map_err(died)?
        })
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl fmt::Debug for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Transfer")
    }
}

/// Cancels a transfer from elsewhere, such as a signal handler's task.
#[derive(Clone, Debug)]
pub struct CancelHandle(CancellationToken);

impl CancelHandle {
    /// Ends the transfer with [`TransferError::Cancelled`], unless it has ended already.
    pub fn cancel(&self) {
        self.0.cancel();
    }
}
