//! A session of protocol 2: one transfer's conversation, from the answer that grants it to its end.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OnceCell, OwnedSemaphorePermit, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backend::Object;
use crate::digest::{Blake3Digest, Md5Digest};
use crate::manifest::{BlockId, BlockSet, Manifest, StreamCount, StreamId};
use crate::proto::v2::{Hello, Replacing, Secret, SessionId, WholeDigests, WholeDigestsReply};
use crate::send::digest_cache::DigestError;
use crate::send::fair_queue::FairPermit;
use crate::server::admission::{Permit, client_key};
use crate::server::event::{ServerEvent, StreamRefusal, TransferFailure, TransferId};
use crate::server::{ServerOptions, Shared};

/// All sessions of a server, by their numbers.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<HashMap<SessionId, Arc<Session>>>);

impl Sessions {
    fn insert(&self, session: &Arc<Session>) {
        self.all().insert(session.id, Arc::clone(session));
    }

    fn remove(&self, id: SessionId) {
        self.all().remove(&id);
    }

    /// Whether a number is taken.
    pub(crate) fn contains(&self, id: SessionId) -> bool {
        self.all().contains_key(&id)
    }

    /// The session that a hello names with the right secret.
    pub(crate) fn find(&self, hello: &Hello) -> Option<Arc<Session>> {
        let session = self.all().get(&hello.session).cloned()?;
        (session.secret == hello.secret).then_some(session)
    }

    fn all(&self) -> MutexGuard<'_, HashMap<SessionId, Arc<Session>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What all streams of a session share.
#[derive(Debug)]
pub(crate) struct Session {
    shared: Arc<Shared>,
    id: SessionId,
    secret: Secret,
    transfer: TransferId,
    /// Who waits with others of the same share for turns.
    client_key: IpAddr,
    source: Arc<dyn Object>,
    manifest: Manifest,
    streams: StreamCount,
    table: Mutex<Table>,
    /// How many connections carry streams, with those that are replaced and have not told of it yet.
    n_open: watch::Sender<usize>,
    /// The streams end now.
    ended: CancellationToken,
    /// The blocks whose remembered digests were given to the receiver; made when there is one.
    remembered: Mutex<Option<BlockSet>>,
    bytes_sent: AtomicU64,
    granted: Instant,
    md5: OnceCell<Md5Digest>,
    blake3: OnceCell<Blake3Digest>,
}

/// The streams that are open, and whether there may be more.
#[derive(Debug, Default)]
struct Table {
    open: HashMap<u8, Open>,
    n_claims: u64,
    session_end: Option<SessionEnd>,
}

/// A stream that a connection carries.
#[derive(Debug)]
struct Open {
    claim: u64,
    stop: CancellationToken,
    /// The stream's place among all that are open at once.
    place: OwnedSemaphorePermit,
    /// Its connection's place, which the connection keeps until it is closed.
    connected: Arc<Permit>,
}

/// How a session came to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SessionEnd {
    /// The receiver said so.
    Finished,
    Expired,
    Failed(TransferFailure),
}

/// What a session is made of.
#[derive(Debug)]
pub(crate) struct Terms {
    pub(crate) id: SessionId,
    pub(crate) secret: Secret,
    pub(crate) client_key: SocketAddr,
    pub(crate) source: Arc<dyn Object>,
    pub(crate) manifest: Manifest,
    pub(crate) streams: StreamCount,
}

impl Session {
    /// Begins a session; its streams find it from now on.
    pub(crate) fn begin(shared: &Arc<Shared>, terms: Terms, path: PathBuf, place: Permit) -> Arc<Self> {
        let transfer = shared.next_transfer();
        let session = Arc::new(Self {
            shared: Arc::clone(shared),
            id: terms.id,
            secret: terms.secret,
            transfer,
            client_key: client_key(terms.client_key.ip()),
            source: terms.source,
            manifest: terms.manifest,
            streams: terms.streams,
            table: Mutex::default(),
            n_open: watch::Sender::new(0),
            ended: shared.aborted.child_token(),
            remembered: Mutex::default(),
            bytes_sent: AtomicU64::new(0),
            granted: Instant::now(),
            md5: OnceCell::new(),
            blake3: OnceCell::new(),
        });
        shared.emit(ServerEvent::TransferStarted {
            transfer,
            protocol: 2,
            peer: terms.client_key,
            path,
            size: session.manifest.size(),
            streams: session.streams,
            port: shared.data_addr.port(),
        });
        if session.manifest.n_blocks() == 0 {
            // The answer is all there is.
            drop(place);
            shared.emit(session.last_event(SessionEnd::Finished));
        } else {
            shared.sessions.insert(&session);
            shared.tracker.spawn(Arc::clone(&session).run(place));
        }
        session
    }

    /// Keeps the session until it ends, and then closes everything that belongs to it.
    async fn run(self: Arc<Self>, place: Permit) {
        let session_end = tokio::select! {
            biased;
            // Whoever ended it said how.
            () = self.ended.cancelled() => SessionEnd::Failed(TransferFailure::ShutDown),
            () = self.expire() => SessionEnd::Expired,
            () = self.drain() => SessionEnd::Failed(TransferFailure::ShutDown),
        };
        let session_end = self.end(session_end);
        self.shared.sessions.remove(self.id);
        self.all_closed().await;
        // Whoever sees the event may ask again at once.
        drop(place);
        self.shared.emit(self.last_event(session_end));
    }

    /// Returns when no stream was open for the expiry time.
    async fn expire(&self) {
        let mut n_open = self.n_open.subscribe();
        loop {
            self.all_closed().await;
            let opened = n_open.wait_for(|n| *n > 0);
            if tokio::time::timeout(self.options().session_expiry, opened).await.is_err() {
                return;
            }
        }
    }

    /// Returns when the server stops and the streams have told their receivers.
    async fn drain(&self) {
        self.shared.draining.cancelled().await;
        self.all_closed().await;
    }

    async fn all_closed(&self) {
        // The sender is right here, so the wait has no other end.
        let _ = self.n_open.subscribe().wait_for(|n| *n == 0).await;
    }

    /// Ends the session and its streams; the first reason counts, and is returned.
    pub(crate) fn end(&self, session_end: SessionEnd) -> SessionEnd {
        let session_end = *self.table().session_end.get_or_insert(session_end);
        self.ended.cancel();
        session_end
    }

    fn last_event(&self, session_end: SessionEnd) -> ServerEvent {
        let (transfer, bytes) = (self.transfer, self.bytes_sent.load(Ordering::Relaxed));
        match session_end {
            SessionEnd::Finished => {
                ServerEvent::TransferFinished { transfer, bytes, elapsed: self.granted.elapsed() }
            }
            SessionEnd::Expired => ServerEvent::TransferExpired {
                transfer,
                missing: usize::from(self.streams.value()),
                bytes,
                idle: self.options().session_expiry,
            },
            SessionEnd::Failed(reason) => ServerEvent::TransferFailed { transfer, reason },
        }
    }

    /// Gives the stream that a hello names to its connection; a refusal changes nothing.
    pub(crate) fn claim(self: &Arc<Self>, hello: &Hello, peer: IpAddr) -> Result<StreamGuard, StreamRefusal> {
        let byte = hello.stream;
        let stream = self.streams.stream(byte).ok_or(StreamRefusal::OutOfRange(byte))?;
        let mut table = self.table();
        if table.session_end.is_some() {
            return Err(StreamRefusal::NoSession);
        }
        let (place, connected) = match (table.open.remove(&byte), hello.replacing) {
            (None, _) => {
                let connected = self.shared.data_connections.admit(peer).ok_or(StreamRefusal::NoCapacity)?;
                let place = Arc::clone(&self.shared.turns).try_acquire_owned();
                (place.map_err(|_| StreamRefusal::NoCapacity)?, Arc::new(connected))
            }
            (Some(former), Replacing::Former) => {
                former.stop.cancel();
                (former.place, former.connected)
            }
            (Some(former), Replacing::Nothing) => {
                table.open.insert(byte, former);
                return Err(StreamRefusal::Busy(stream));
            }
        };
        table.n_claims += 1;
        let (number, stop) = (table.n_claims, self.ended.child_token());
        let open = Open { claim: number, stop: stop.clone(), place, connected: Arc::clone(&connected) };
        table.open.insert(byte, open);
        self.n_open.send_modify(|n| *n += 1);
        drop(table);
        Ok(StreamGuard { session: Arc::clone(self), stream, number, stop, connected })
    }

    /// Notes that the receiver gets the remembered digest of a block; `false` if it has got it before.
    pub(crate) fn give_remembered(&self, block: BlockId) -> bool {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.get_or_insert_with(|| BlockSet::new(&self.manifest)).insert(block)
    }

    /// Computes the MD5 beside everything else, until the session ends.
    pub(crate) async fn hash_ahead(self: Arc<Self>) {
        tokio::select! {
            biased;
            () = self.ended.cancelled() => {}
            () = self.shared.draining.cancelled() => {}
            // Whoever asks for it meets the error again.
            _ = self.md5() => {}
        }
    }

    /// The file's digests; whoever asks a second time gets what the first one found.
    pub(crate) async fn whole_digests(&self, which: WholeDigests) -> Result<WholeDigestsReply, DigestError> {
        let blake3 = || self.shared.digests.blake3(&self.source, self.manifest, self.client_key);
        let blake3 = *self.blake3.get_or_try_init(blake3).await?;
        let md5 = match which {
            WholeDigests::Blake3 => None,
            WholeDigests::Blake3AndMd5 => Some(self.md5().await?),
        };
        // What was remembered is of the content that was opened.
        if self.source.is_unchanged() {
            Ok(WholeDigestsReply { blake3, md5 })
        } else {
            Err(DigestError::Changed)
        }
    }

    async fn md5(&self) -> Result<Md5Digest, DigestError> {
        let md5 = || self.shared.digests.md5(&self.source, self.client_key);
        self.md5.get_or_try_init(md5).await.copied()
    }

    pub(crate) fn add_bytes_sent(&self, n: u64) {
        self.bytes_sent.fetch_add(n, Ordering::Relaxed);
        self.shared.stats.add_bytes_sent(n);
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(crate) fn options(&self) -> &ServerOptions {
        &self.shared.options
    }

    pub(crate) fn transfer(&self) -> TransferId {
        self.transfer
    }

    pub(crate) fn source(&self) -> &Arc<dyn Object> {
        &self.source
    }

    pub(crate) fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The next turn to use a core, for the share of the address that asked for the session.
    pub(crate) async fn next_turn(&self) -> FairPermit {
        self.shared.fair_queue.next(self.client_key, self.transfer.0).await
    }

    /// The streams; the lock is never held across a wait.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream that this connection carries; dropping it frees the stream for another.
#[derive(Debug)]
pub(crate) struct StreamGuard {
    session: Arc<Session>,
    stream: StreamId,
    number: u64,
    stop: CancellationToken,
    connected: Arc<Permit>,
}

impl StreamGuard {
    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    pub(crate) fn stream(&self) -> StreamId {
        self.stream
    }

    /// The place of its connection, to be kept until that is closed.
    pub(crate) fn connected(&self) -> Arc<Permit> {
        Arc::clone(&self.connected)
    }

    /// Ends when the stream must: it was replaced, or the session or the server is over.
    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Whether another connection has taken the stream over.
    pub(crate) fn is_replaced(&self) -> bool {
        let open = self.session.table().open.get(&self.stream.byte()).map(|open| open.claim);
        open.is_some_and(|claim| claim != self.number)
    }

    /// Whether the session has ended as its receiver wished.
    pub(crate) fn is_finished(&self) -> bool {
        self.session.table().session_end == Some(SessionEnd::Finished)
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        let mut table = self.session.table();
        let byte = self.stream.byte();
        if table.open.get(&byte).is_some_and(|open| open.claim == self.number) {
            table.open.remove(&byte);
        }
        self.session.n_open.send_modify(|n| *n = n.saturating_sub(1));
    }
}
