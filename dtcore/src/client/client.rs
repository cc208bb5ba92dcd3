//! A client of one server: what its transfers have in common, and the threads that they share.

use std::ffi::OsString;
use std::num::NonZeroU64;
use std::time::{Duration, SystemTime};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::address::ServerAddress;
use super::control::{AskUpgrade, Control, ServerAnswer};
use super::download::Download;
use super::list::List;
use super::options::{Options, ProtocolChoice};
use super::runtime::Threads;
use super::tree::TreeDownload;
use super::upload::Upload;
use crate::digest::{Blake3Digest, Md5Digest};
use crate::error::TransferError;
use crate::failure::Failure;
use crate::manifest::StreamCount;
use crate::num::bounded;
use crate::proto::v2::{Push, SessionRequest};
use crate::receive::EndNotice;
use crate::schedule::RetryLimit;
use crate::sink::system_time;
use crate::transport::RateLimit;

/// A client of one server. Clones share its threads and its rate limit, as do all of its transfers.
///
/// ```
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let client = dtcore::Client::builder("files.example:9000".parse()?)
///     .streams(dtcore::StreamCount::new(8)?)
///     .build()?;
/// let report = client.download("remote/path").to_path("out.bin").await?;
/// println!("{} bytes in {:?}", report.bytes, report.elapsed);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    options: Options,
    threads: Threads,
}

/// Builds a [`Client`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct ClientBuilder {
    options: Options,
    runtime: Option<Handle>,
}

/// What a server reports about a file.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct RemoteFile {
    /// The size in bytes.
    pub size: u64,
    /// The modification time.
    pub modified: SystemTime,
    /// The BLAKE3 hash, if the server knows it without reading the file.
    pub blake3: Option<Blake3Digest>,
    /// The MD5, if the server knows it without reading the file.
    pub md5: Option<Md5Digest>,
}

impl Client {
    /// A client of `server` with the default options and threads of its own.
    ///
    /// # Errors
    /// [`ErrorKind::System`](crate::ErrorKind::System) if threads cannot be started.
    pub fn new(server: ServerAddress) -> Result<Self, TransferError> {
        Self::builder(server).build()
    }

    /// A builder of a client of `server`.
    pub fn builder(server: ServerAddress) -> ClientBuilder {
        ClientBuilder { options: Options::new(server), runtime: None }
    }

    /// A download of the file `name`, which is relative to the directory that the server serves, with or without a leading
    /// slash.
    pub fn download(&self, name: impl Into<OsString>) -> Download {
        Download::new(name.into(), self.options.clone(), self.threads.clone())
    }

    /// An upload to the file `name`, which is relative to the directory that the server takes uploads in, with or without a leading slash.
    pub fn upload(&self, name: impl Into<OsString>) -> Upload {
        Upload::new(name.into(), self.options.clone(), self.threads.clone())
    }

    /// A download of the directory `name`, with all that is in it.
    pub fn download_tree(&self, name: impl Into<OsString>) -> TreeDownload {
        TreeDownload::new(name.into(), self.options.clone(), self.threads.clone())
    }

    /// A listing of the directory `name`.
    pub fn list(&self, name: impl Into<OsString>) -> List {
        List::new(name.into(), self.options.clone(), self.threads.clone())
    }

    /// The server.
    pub fn server(&self) -> &ServerAddress {
        &self.options.server
    }

    /// Asks the server about a file, without receiving it.
    ///
    /// # Errors
    /// As for a download; [`ErrorKind::Protocol`](crate::ErrorKind::Protocol) if the server speaks protocol 1 only.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection soon after.
    pub async fn stat(&self, name: impl Into<OsString>) -> Result<RemoteFile, TransferError> {
        let (options, name) = (self.options.clone(), name.into());
        let (mut sender, outcome) = oneshot::channel();
        self.threads.spawn(async move {
            tokio::select! {
                () = sender.closed() => {}
                // An error only says that the caller does not wait any more.
                result = stat(options, name) => drop(sender.send(result)),
            }
        });
        let died = |_| Failure::system("continue", "the runtime has shut down");
        Ok(outcome.await.map_err(died)??)
    }
}

async fn stat(options: Options, name: OsString) -> Result<RemoteFile, Failure> {
    let control = Control::open(&options.server, options.connect_timeout, &[]).await?;
    let (streams, push) = (StreamCount::ONE, Push::default());
    let body =
        SessionRequest { streams, digests: options.settings.digests(), push, may_grow: false }.encode();
    let answer = control.request(&name, &body, AskUpgrade::Yes, options.first_answer_timeout()).await?;
    let ServerAnswer::V2 { offer, stream } = answer else {
        let what = "it speaks protocol 1 only".to_owned();
        return Err(Failure::Protocol { server: options.server.to_string(), what });
    };
    if let Some(stream) = stream {
        stream.end_session(EndNotice::Complete);
    }
    let modified = system_time(offer.modified);
    Ok(RemoteFile { size: offer.manifest.size(), modified, blake3: offer.blake3, md5: offer.md5 })
}

impl ClientBuilder {
    /// The number of streams of each transfer, 8 by default.
    pub fn streams(mut self, streams: StreamCount) -> Self {
        self.options.settings.streams = streams;
        self
    }

    /// The protocol; by default protocol 2 if the server speaks it.
    pub fn protocol(mut self, protocol: ProtocolChoice) -> Self {
        self.options.protocol = protocol;
        self
    }

    /// Limits the rate at which all transfers of this client and its clones together receive or send data, in bytes a second.
    ///
    /// In protocol 1 the server may give up a stream that accepts too little: it sees no more than that there is room again in a
    /// buffer of some MiB. Over loopback, a server that waits a minute ended streams of 20 KB a second each, and none of 25;
    /// with fewer streams each gets more.
    pub fn rate_limit(mut self, bytes_per_second: NonZeroU64) -> Self {
        self.options.settings.rate_limit = Some(RateLimit::new(bytes_per_second));
        self
    }

    /// How many rounds of reconnecting may fail in a row, with no block verified in between, and no progress of the server with
    /// the file's digests; 10 by default. A round is over when every stream has failed: while one of them is open, the others
    /// only retry with longer and longer pauses. A request that a busy server refuses (429, 502 to 504) is repeated as often. Protocol 1
    /// never reconnects.
    pub fn retries(mut self, rounds: u32) -> Self {
        self.options.settings.retries.rounds = Some(rounds);
        self
    }

    /// How long retrying may go on without progress, in place of a number of rounds; [`Duration::ZERO`] is without limit. The server is
    /// then also tried again if it cannot be reached at the start. To limit both, call [`retries`](Self::retries) after this.
    pub fn retry_time(mut self, limit: Duration) -> Self {
        let time = Some(bounded(limit)).filter(|limit| !limit.is_zero());
        self.options.settings.retries = RetryLimit { rounds: None, time };
        self
    }

    /// The timeout for establishing one connection; 10 seconds by default.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.options.connect_timeout = bounded(limit);
        self
    }

    /// How long no data may arrive: in protocol 1 on one stream, in protocol 2, which replaces such streams long before, on all
    /// of them; 60 seconds by default.
    pub fn stall_timeout(mut self, limit: Duration) -> Self {
        self.options.settings.stall_timeout = bounded(limit);
        self
    }

    /// How long the server's answer may take if protocol 1 was chosen, and in protocol 2 how long it may make no progress with the
    /// file's digests in the end; an hour by default, because a server of protocol 1 hashes the complete file before it answers, and in
    /// both protocols other files may be hashed first. With the other choices of the protocol the first answer may take the stall
    /// timeout.
    pub fn answer_timeout(mut self, limit: Duration) -> Self {
        self.options.settings.answer_timeout = bounded(limit);
        self
    }

    /// Runs all transfers on this runtime, which must be multi-threaded with I/O and time enabled, rather than on threads of the
    /// client's own. Transfers write to memory-mapped files there, which may wait for a disk.
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// The client.
    ///
    /// # Errors
    /// [`ErrorKind::System`](crate::ErrorKind::System) if threads cannot be started.
    pub fn build(self) -> Result<Client, TransferError> {
        let threads = match self.runtime {
            Some(handle) => Threads::Embedder(handle),
            None => Threads::start()?,
        };
        Ok(Client { options: self.options, threads })
    }
}
