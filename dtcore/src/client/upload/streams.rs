//! The streams of an upload: each is dialled, serves what the server requests, and is dialled again when it was lost.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::{Instant, sleep};

use crate::client::attempts::Attempts;
use crate::client::control::UpgradedStream;
use crate::client::dial::{StreamRoute, dial};
use crate::client::options::Options;
use crate::event::{Event, EventSender, Outage};
use crate::failure::Failure;
use crate::manifest::StreamId;
use crate::proto::v2::{ErrorCode, Hello, ReceiverFailure, Replacing};
use crate::schedule::{Backoff, Retries};
use crate::send::{Opening, Places, Session, SessionEnd, serve_stream};
use crate::sync::Lock;
use crate::transport::{Connection, failed};

/// What the streams of an upload share.
pub(super) struct Uploading {
    options: Options,
    /// The request for the session.
    body: String,
    pub(super) session: Arc<Session>,
    pub(super) events: EventSender,
    pub(super) started: Instant,
    current: Lock<OpenSession>,
    /// Held by the one stream that requests the session again.
    renewing: AsyncMutex<()>,
    retries: Lock<Retries>,
    /// What was sent when the retries were last reset.
    progressed: AtomicU64,
    n_open: AtomicUsize,
    n_lost: AtomicU64,
    n_retries: AtomicU64,
    has_started: AtomicBool,
}

/// Where the session is open.
#[derive(Debug, Default)]
struct OpenSession {
    peer: Option<SocketAddr>,
    route: Option<StreamRoute>,
    /// The connection of the request, until it is used.
    first: Option<UpgradedStream>,
    /// How often the session was requested.
    epoch: u64,
}

impl Uploading {
    pub(super) fn new(
        options: Options,
        body: String,
        session: Arc<Session>,
        events: EventSender,
        started: Instant,
    ) -> Self {
        let retries = Lock::new(Retries::new(options.settings.retries, 1));
        Self {
            options,
            body,
            session,
            events,
            started,
            current: Lock::default(),
            renewing: AsyncMutex::default(),
            retries,
            progressed: AtomicU64::new(0),
            n_open: AtomicUsize::new(0),
            n_lost: AtomicU64::new(0),
            n_retries: AtomicU64::new(0),
            has_started: AtomicBool::new(false),
        }
    }

    /// A round of retries is over when so many streams have failed.
    pub(super) fn limit_streams(&self, n_streams: usize) {
        *self.retries.lock() = Retries::new(self.options.settings.retries, n_streams);
    }

    pub(super) fn n_open(&self) -> u8 {
        u8::try_from(self.n_open.load(Ordering::Relaxed)).unwrap_or(u8::MAX)
    }

    pub(super) fn n_lost(&self) -> u64 {
        self.n_lost.load(Ordering::Relaxed)
    }

    pub(super) fn n_retries(&self) -> u64 {
        self.n_retries.load(Ordering::Relaxed)
    }

    /// Whether the server has accepted the upload.
    pub(super) fn has_started(&self) -> bool {
        self.has_started.load(Ordering::Relaxed)
    }

    pub(super) fn outage(&self) -> Option<Outage> {
        let retries = self.retries.lock();
        let outage = Outage { attempt: retries.rounds(), limit: retries.limit() };
        (outage.attempt > 0 && self.n_open() == 0).then_some(outage)
    }

    fn server(&self) -> String {
        self.options.server.to_string()
    }

    /// The error of an upload that the server did not complete.
    pub(super) fn failed(&self, failure: ReceiverFailure, reason: String) -> Failure {
        let name = self.options.name.to_string_lossy().into_owned();
        Failure::UploadFailed { server: self.server(), name, failure, reason }
    }

    /// Requests the session, which is the same one each time.
    pub(super) async fn open_session(&self) -> Result<(), Failure> {
        let mut attempts = Attempts::new(&self.options, &self.events);
        let (peer, first) = loop {
            let (control, limit) = attempts.connect().await?;
            let peer = control.peer;
            match control.upload(&self.options.name, &self.body, limit).await {
                Ok(first) => break (peer, first),
                Err(error) => attempts.failed(error).await?,
            }
        };
        self.has_started.store(true, Ordering::Relaxed);
        let mut current = self.current.lock();
        let route = Some(current.route.unwrap_or(StreamRoute::Direct));
        *current = OpenSession { peer: Some(peer), route, first: Some(first), epoch: current.epoch + 1 };
        Ok(())
    }

    /// Requests the session again, which a server that was restarted does not know, unless another stream has since `epoch`.
    async fn renew(&self, epoch: u64) -> Result<(), Failure> {
        let _one = self.renewing.lock().await;
        if self.current.lock().epoch == epoch { self.open_session().await } else { Ok(()) }
    }

    /// A connection for `stream`, what was read of it, and the epoch that it belongs to.
    async fn connect(
        &self,
        stream: StreamId,
        replacing: Replacing,
    ) -> Result<(Connection, Bytes, u64), Failure> {
        let (first, peer, route, epoch) = {
            let mut current = self.current.lock();
            let first = current.first.take_if(|_| stream.index() == 0);
            (first, current.peer, current.route, current.epoch)
        };
        if let Some(UpgradedStream { connection, early, .. }) = first {
            return Ok((connection, early.into(), epoch));
        }
        let (Some(peer), Some(route)) = (peer, route) else {
            return Err(Failure::system("continue", "there is no session"));
        };
        let dialled = dial(peer, route, self.options.connect_timeout).await;
        let (socket, _) = dialled.map_err(|source| {
            if source.kind() == io::ErrorKind::InvalidData {
                Failure::StreamsBlocked { server: self.server() }
            } else {
                failed(self.server(), source)
            }
        })?;
        let spec = &self.session.spec;
        let hello = Hello { stream: stream.byte(), secret: spec.secret.clone(), session: spec.id, replacing };
        let connection = Connection::tcp(Arc::new(socket));
        connection.try_write(&hello.encode()).map_err(|source| self.lost(stream, Some(source)))?;
        Ok((connection, Bytes::new(), epoch))
    }

    fn lost(&self, stream: StreamId, source: Option<io::Error>) -> Failure {
        Failure::ConnectionLost { server: self.server(), stream: Some(stream.byte()), received: 0, source }
    }

    /// Counts a failure of `stream`.
    ///
    /// # Errors
    /// `error`, if there is no other attempt.
    fn retry(&self, stream: StreamId, error: Failure) -> Result<(), Failure> {
        let sent = self.session.bytes_sent();
        let mut retries = self.retries.lock();
        if self.progressed.swap(sent, Ordering::Relaxed) != sent {
            retries.progressed();
        }
        let is_final = !(error.is_retryable() || error.is_shortage());
        if is_final || retries.failed(stream, self.started.elapsed()).is_err() {
            return Err(error);
        }
        self.n_retries.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Runs `stream` until the session ends.
///
/// # Errors
/// Why it cannot be opened any more.
pub(super) async fn run_stream(uploading: Arc<Uploading>, stream: StreamId) -> Result<(), Failure> {
    let mut backoff = Backoff::new(stream);
    let mut replacing = Replacing::Nothing;
    loop {
        let error = match uploading.connect(stream, replacing).await {
            Ok((connection, early, epoch)) => {
                replacing = Replacing::Former;
                let before = uploading.session.bytes_sent();
                match serve(&uploading, stream, connection, early).await {
                    Served::Ended => return Ok(()),
                    Served::Rejected(ErrorCode::NoSuchSession) => match uploading.renew(epoch).await {
                        Ok(()) => continue,
                        Err(error) => error,
                    },
                    Served::Rejected(_) | Served::Lost => {
                        if uploading.session.bytes_sent() > before {
                            backoff.progressed();
                        }
                        let error = uploading.lost(stream, None);
                        uploading.n_lost.fetch_add(1, Ordering::Relaxed);
                        let reason = "its connection ended".to_owned();
                        uploading.events.try_emit(Event::StreamLost { stream, reason });
                        error
                    }
                }
            }
            Err(error) => error,
        };
        uploading.retry(stream, error)?;
        sleep(backoff.failed()).await;
    }
}

/// How a connection ended.
enum Served {
    /// With the session.
    Ended,
    /// The server did not take it.
    Rejected(ErrorCode),
    Lost,
}

async fn serve(uploading: &Uploading, stream: StreamId, connection: Connection, early: Bytes) -> Served {
    let session = &uploading.session;
    let places = || Some(Places::unlimited());
    let Ok(guard) = session.claim(stream.byte(), Replacing::Former, places) else { return Served::Ended };
    uploading.n_open.fetch_add(1, Ordering::Relaxed);
    let rejection = serve_stream(guard, connection, early, Opening::Hello).await;
    uploading.n_open.fetch_sub(1, Ordering::Relaxed);
    match (session.ended(), rejection) {
        (Some(SessionEnd::Finished | SessionEnd::Failed | SessionEnd::Left), _) => Served::Ended,
        (_, Some(code)) => Served::Rejected(code),
        (_, None) => Served::Lost,
    }
}
