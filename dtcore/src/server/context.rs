//! What all tasks of a server share.

use std::ffi::OsStr;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::broadcast;

use super::admission::{Limits, Permit, client_key};
use super::event::{self, ServerEvent, TransferId};
use super::options::ServerOptions;
use super::refusal::Refusal;
use super::sessions::Sessions;
use super::stats::ServerStats;
use super::uploads::Uploads;
use crate::backend::fs::Root;
use crate::send::digest_cache::DigestCache;
use crate::send::{self, FairQueue, Tasks, Timeouts};
use crate::transport::RateLimit;

/// What all tasks of a server share.
#[derive(Debug)]
pub(crate) struct ServerContext {
    pub(crate) options: ServerOptions,
    pub(crate) local_addr: SocketAddr,
    pub(crate) root: Arc<Root>,
    /// The folder of uploads; that which is served, unless there is another one.
    pub(crate) upload_root: Arc<Root>,
    pub(crate) limits: Limits,
    pub(crate) sessions: Sessions,
    pub(crate) uploads: Uploads,
    /// What the sending engine needs, with the tasks of the server.
    pub(crate) send: Arc<send::Context>,
    pub(crate) stats: ServerStats,
    pub(crate) events: broadcast::Sender<ServerEvent>,
    n_transfers: AtomicU64,
}

/// The folders of a server.
#[derive(Debug)]
pub(crate) struct Roots {
    pub(crate) served: Arc<Root>,
    pub(crate) uploads: Arc<Root>,
}

impl ServerContext {
    pub(crate) fn new(options: ServerOptions, roots: Roots, local_addr: SocketAddr) -> Self {
        let (stats, tasks) = (ServerStats::default(), Tasks::default());
        let send = send::Context {
            digests: DigestCache::new(options.min_age, &tasks.tracker, Arc::clone(&stats.bytes_hashed)),
            fair_queue: FairQueue::new(),
            timeouts: Timeouts {
                stall: options.stall_timeout,
                idle: options.idle_timeout,
                session: options.session_expiry,
            },
            rate_limit: options.rate_limit.map(RateLimit::new),
            tasks,
            bytes_sent: Arc::clone(&stats.bytes_sent),
        };
        Self {
            local_addr,
            root: roots.served,
            upload_root: roots.uploads,
            limits: Limits::new(&options),
            sessions: Sessions::default(),
            uploads: Uploads::default(),
            send: Arc::new(send),
            stats,
            events: broadcast::Sender::new(event::BACKLOG),
            n_transfers: AtomicU64::new(0),
            options,
        }
    }

    pub(crate) fn tasks(&self) -> &Tasks {
        &self.send.tasks
    }

    /// A place among the transfers. If all are taken, idle sessions of the same client are evicted.
    pub(crate) fn admit(&self, peer: IpAddr) -> Result<Permit, Refusal> {
        loop {
            match self.limits.transfers.admit(peer) {
                Some(permit) => return Ok(permit),
                None if self.sessions.evict_idle(client_key(peer)) => {}
                None => return Err(Refusal::busy("too many transfers")),
            }
        }
    }

    pub(crate) fn emit(&self, event: ServerEvent) {
        self.stats.count(&event);
        // A server without observers is no error.
        let _ = self.events.send(event);
    }

    pub(crate) fn emit_refused(&self, peer: SocketAddr, refusal: &Refusal, name: Option<&[u8]>) {
        self.emit(ServerEvent::RequestRefused {
            peer,
            status: refusal.status.as_u16(),
            reason: refusal.reason.clone(),
            path: name.map(|name| PathBuf::from(OsStr::from_bytes(name))),
        });
    }

    pub(crate) fn emit_accept_failed(&self, error: &io::Error) {
        self.emit(ServerEvent::AcceptFailed { reason: error.to_string() });
    }

    pub(crate) fn next_transfer(&self) -> TransferId {
        TransferId(self.n_transfers.fetch_add(1, Ordering::Relaxed) + 1)
    }
}
