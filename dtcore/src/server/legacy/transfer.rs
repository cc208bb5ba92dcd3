//! What all connections of a transfer of protocol 1 share.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::slots::Slots;
use crate::backend::Object;
use crate::manifest::StaticSplit;
use crate::server::ServerContext;
use crate::server::event::TransferId;

/// What all connections of a transfer share.
#[derive(Debug)]
pub(super) struct LegacyTransfer {
    pub(super) context: Arc<ServerContext>,
    pub(super) id: TransferId,
    /// The client; streams must be from its IP address.
    pub(super) peer: SocketAddr,
    pub(super) path: PathBuf,
    pub(super) source: Arc<dyn Object>,
    pub(super) split: StaticSplit,
    pub(super) slots: Slots,
    /// Cancelled when this transfer or the server is aborted.
    pub(super) aborted: CancellationToken,
    pub(super) started: Instant,
    pub(super) bytes_sent: AtomicU64,
}

impl LegacyTransfer {
    pub(super) fn add_bytes_sent(&self, n: u64) {
        self.bytes_sent.fetch_add(n, Ordering::Relaxed);
        self.context.stats.bytes_sent.fetch_add(n, Ordering::Relaxed);
    }
}
