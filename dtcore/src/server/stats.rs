//! Counters of a server's work.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::server::event::ServerEvent;

/// What a server has done since its start; clones show the same counters, at any time, also after its end.
#[derive(Clone, Default, Debug)]
pub struct ServerStats {
    counters: Arc<Counters>,
    pub(crate) bytes_hashed: Arc<AtomicU64>,
}

#[derive(Default, Debug)]
struct Counters {
    bytes_sent: AtomicU64,
    requests_refused: AtomicU64,
    transfers_started: AtomicU64,
    transfers_ended: AtomicU64,
    transfers_finished: AtomicU64,
    streams_opened: AtomicU64,
    streams_finished: AtomicU64,
    streams_failed: AtomicU64,
    streams_refused: AtomicU64,
}

impl ServerStats {
    /// Bytes of files handed to the system for responder.
    pub fn bytes_sent(&self) -> u64 {
        self.counters.bytes_sent.load(Ordering::Relaxed)
    }

    /// Bytes read to compute digests; a digest that is known already adds nothing.
    pub fn bytes_hashed(&self) -> u64 {
        self.bytes_hashed.load(Ordering::Relaxed)
    }

    /// Requests that were refused.
    pub fn requests_refused(&self) -> u64 {
        self.counters.requests_refused.load(Ordering::Relaxed)
    }

    /// Transfers that were granted.
    pub fn transfers_started(&self) -> u64 {
        self.counters.transfers_started.load(Ordering::Relaxed)
    }

    /// Transfers that are over, in whatever way.
    pub fn transfers_ended(&self) -> u64 {
        self.counters.transfers_ended.load(Ordering::Relaxed)
    }

    /// Transfers all of whose streams were sent completely.
    pub fn transfers_finished(&self) -> u64 {
        self.counters.transfers_finished.load(Ordering::Relaxed)
    }

    /// Connections that became streams of sessions of protocol 2.
    pub fn streams_opened(&self) -> u64 {
        self.counters.streams_opened.load(Ordering::Relaxed)
    }

    /// Streams that were sent completely, or in protocol 2 ended between two ranges.
    pub fn streams_finished(&self) -> u64 {
        self.counters.streams_finished.load(Ordering::Relaxed)
    }

    /// Streams that broke.
    pub fn streams_failed(&self) -> u64 {
        self.counters.streams_failed.load(Ordering::Relaxed)
    }

    /// Connections to transfer ports or to the data port that got no data.
    pub fn streams_refused(&self) -> u64 {
        self.counters.streams_refused.load(Ordering::Relaxed)
    }

    pub(crate) fn add_bytes_sent(&self, bytes: u64) {
        self.counters.bytes_sent.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn count(&self, event: &ServerEvent) {
        let counters = &self.counters;
        let add = |counter: &AtomicU64| {
            counter.fetch_add(1, Ordering::Relaxed);
        };
        match event {
            ServerEvent::TransferStarted { .. } => add(&counters.transfers_started),
            ServerEvent::StreamFinished { .. } => add(&counters.streams_finished),
            ServerEvent::StreamFailed { .. } => add(&counters.streams_failed),
            ServerEvent::StreamOpened { .. } => add(&counters.streams_opened),
            ServerEvent::StreamRefused { .. } | ServerEvent::ConnectionRefused { .. } => {
                add(&counters.streams_refused);
            }
            ServerEvent::TransferFinished { .. } => {
                add(&counters.transfers_finished);
                add(&counters.transfers_ended);
            }
            ServerEvent::TransferExpired { .. } | ServerEvent::TransferFailed { .. } => {
                add(&counters.transfers_ended);
            }
            ServerEvent::RequestRefused { .. } => add(&counters.requests_refused),
            ServerEvent::AcceptFailed { .. } => {}
        }
    }
}
