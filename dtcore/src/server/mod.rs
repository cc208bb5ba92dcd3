//! The sender's side: a server that embeds in any program and serves the files of a folder.

pub(crate) mod admission;
mod error;
pub(crate) mod event;
mod head;
mod http;
mod legacy;
mod options;
pub(crate) mod refusal;
mod rewind;
mod router;
mod stats;
#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, broadcast};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use error::ServerError;
pub use event::{ServerEvent, ServerEvents, StreamFailure, StreamRefusal, TransferFailure, TransferId};
pub use options::{InvalidPortRange, PortRange, ServerOptions};
pub use stats::ServerStats;

use crate::backend::fs::Root;
use crate::send::digest_cache::DigestCache;
use crate::send::{self, FairQueue, Sessions};
use crate::transport::{PortUse, listen};
use admission::AddressLimit;
use refusal::Refusal;

/// How long what was aborted may take to end.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// A server that listens, and serves once it runs.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    data_listener: TcpListener,
    pub(crate) shared: Arc<Shared>,
}

impl Server {
    /// Opens the folder and listens. Requests wait from now on; [`run`](Self::run) answers them.
    ///
    /// Call it on a tokio runtime with I/O and time enabled.
    ///
    /// # Errors
    /// [`ServerError`] if the folder cannot be served or the address cannot be listened on.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn bind(options: ServerOptions) -> Result<Self, ServerError> {
        let path = options.root().to_owned();
        let opening = tokio::task::spawn_blocking(move || Root::new(&path).map_err(|error| (path, error)));
        let root = match opening.await {
            Ok(Ok(root)) => root,
            Ok(Err((path, error))) => return Err(ServerError::of_root(path, error)),
            Err(error) => {
                let path = options.root().to_owned();
                return Err(ServerError::Root { path, source: io::Error::other(error) });
            }
        };
        let address = options.address();
        let (listener, local_addr) = bound(address)?;
        let (data_listener, data_addr) = bound(options.data_address(local_addr.ip()))?;
        let shared = Arc::new(Shared::new(options, root, local_addr, data_addr));
        Ok(Self { listener, data_listener, shared })
    }

    /// The address and port that requests come to.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.local_addr
    }

    /// The address and port that the streams of protocol 2 come to.
    pub fn data_addr(&self) -> SocketAddr {
        self.shared.data_addr
    }

    /// The absolute path of the folder that is served.
    pub fn root(&self) -> &Path {
        self.shared.root.path()
    }

    /// A new observer; it sees every event from now on.
    pub fn events(&self) -> ServerEvents {
        ServerEvents { receiver: self.shared.events.subscribe(), missed: 0 }
    }

    /// The server's counters, to be read at any time.
    pub fn stats(&self) -> ServerStats {
        self.shared.stats.clone()
    }

    /// Serves until `shutdown` ends, and returns when every task has ended and every socket is closed.
    ///
    /// With the shutdown, nothing new is accepted; running streams have the drain timeout to end, then they are
    /// reset, so that no client takes them for complete. What has not ended a second later waits for a disk, perhaps for
    /// ever, and is left to the runtime.
    ///
    /// # Cancel safety
    /// Dropping the future aborts everything at once; the tasks end on the runtime soon after.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) {
        let Self { listener, data_listener, shared } = self;
        let _draining = shared.draining.clone().drop_guard();
        let _aborted = shared.aborted.clone().drop_guard();
        shared.tracker.spawn(http::keep(Arc::clone(&shared), listener));
        shared.tracker.spawn(send::keep(Arc::clone(&shared), data_listener));
        shutdown.await;
        shared.draining.cancel();
        shared.tracker.close();
        let drained = tokio::time::timeout(shared.options.drain_timeout, shared.tracker.wait()).await;
        if drained.is_err() {
            shared.aborted.cancel();
            // Whatever can end ends at once.
            let _ = tokio::time::timeout(LAST_WAIT, shared.tracker.wait()).await;
        }
    }
}

/// A listener on `address`, and where it listens in fact.
fn bound(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServerError> {
    let failed = |source| ServerError::Listen { address, source };
    let port_use = if address.port() == 0 { PortUse::Ephemeral } else { PortUse::Chosen };
    let listener = listen(address, port_use).map_err(failed)?;
    let local_addr = listener.local_addr().map_err(failed)?;
    Ok((listener, local_addr))
}

/// What all tasks of a server share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: ServerOptions,
    pub(crate) local_addr: SocketAddr,
    pub(crate) data_addr: SocketAddr,
    pub(crate) root: Arc<Root>,
    pub(crate) digests: Arc<DigestCache>,
    pub(crate) connections: Arc<AddressLimit>,
    pub(crate) transfers: Arc<AddressLimit>,
    pub(crate) sessions: Sessions,
    /// The connections that have not said yet which stream they are.
    pub(crate) pending_handshakes: Arc<AddressLimit>,
    /// The connections that carry files, in both protocols.
    pub(crate) data_connections: Arc<AddressLimit>,
    /// Who of the sessions uses a core when.
    pub(crate) fair_queue: Arc<FairQueue>,
    /// The places among the streams that are sent at once.
    pub(crate) turns: Arc<Semaphore>,
    pub(crate) stats: ServerStats,
    pub(crate) events: broadcast::Sender<ServerEvent>,
    pub(crate) n_transfers: AtomicU64,
    pub(crate) tracker: TaskTracker,
    /// Nothing new is begun any more.
    pub(crate) draining: CancellationToken,
    /// What still runs ends now.
    pub(crate) aborted: CancellationToken,
}

impl Shared {
    pub(crate) fn new(
        options: ServerOptions,
        root: Root,
        local_addr: SocketAddr,
        data_addr: SocketAddr,
    ) -> Self {
        let half = |n: NonZeroUsize| NonZeroUsize::new(n.get() / 2).unwrap_or(NonZeroUsize::MIN);
        let stats = ServerStats::default();
        let tracker = TaskTracker::new();
        Self {
            local_addr,
            data_addr,
            sessions: Sessions::default(),
            pending_handshakes: AddressLimit::new(
                options.max_pending_handshakes,
                half(options.max_pending_handshakes),
            ),
            data_connections: AddressLimit::of_data_connections(options.max_streams),
            fair_queue: FairQueue::new(),
            root: Arc::new(root),
            digests: Arc::new(DigestCache::new(options.min_age, &tracker, Arc::clone(&stats.bytes_hashed))),
            connections: AddressLimit::new(options.max_connections, half(options.max_connections)),
            transfers: AddressLimit::new(
                options.max_transfers,
                options.max_transfers_per_address.min(half(options.max_transfers)),
            ),
            turns: Arc::new(Semaphore::new(options.max_streams.get().min(Semaphore::MAX_PERMITS))),
            stats,
            events: broadcast::Sender::new(event::BACKLOG),
            n_transfers: AtomicU64::new(0),
            tracker,
            draining: CancellationToken::new(),
            aborted: CancellationToken::new(),
            options,
        }
    }

    pub(crate) fn emit(&self, event: ServerEvent) {
        self.stats.count(&event);
        // Nobody observing is no error.
        let _ = self.events.send(event);
    }

    pub(crate) fn refused(&self, peer: SocketAddr, refusal: &Refusal, target: Option<&[u8]>) {
        self.emit(ServerEvent::RequestRefused {
            peer,
            status: refusal.status.as_u16(),
            reason: refusal.reason.clone(),
            path: target.map(|target| PathBuf::from(OsStr::from_bytes(target))),
        });
    }

    pub(crate) fn accept_failed(&self, error: &io::Error) {
        self.emit(ServerEvent::AcceptFailed { reason: error.to_string() });
    }

    pub(crate) fn next_transfer(&self) -> TransferId {
        TransferId(self.n_transfers.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// A listener for a new transfer, on the address of the server itself.
    ///
    /// A range of ports is used in turn, so that a late connection of an ended transfer meets a closed port
    /// rather than the next transfer.
    pub(crate) fn transfer_listener(&self) -> io::Result<TcpListener> {
        let on = |port| SocketAddr::from((self.local_addr.ip(), port));
        let Some(ports) = self.options.transfer_ports else {
            return listen(on(0), PortUse::Ephemeral);
        };
        let mut result = Err(io::Error::from(io::ErrorKind::AddrInUse));
        for port in ports.round_from(self.n_transfers.load(Ordering::Relaxed)) {
            result = listen(on(port), PortUse::Chosen);
            match &result {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                Ok(_) | Err(_) => break,
            }
        }
        result
    }
}
