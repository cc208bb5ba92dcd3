//! Counters of a server's work.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::server::event::ServerEvent;

/// What a server has done since its start; clones show the same counters, also after its end.
#[derive(Clone, Default, Debug)]
pub struct ServerStats {
    counters: Arc<EventCounters>,
    pub(crate) bytes_sent: Arc<AtomicU64>,
    pub(crate) bytes_hashed: Arc<AtomicU64>,
}

#[derive(Default, Debug)]
struct EventCounters {
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
    /// Bytes of files that were handed to the kernel.
    pub fn bytes_sent(&self) -> u64 {
        self.bytes_sent.load(Ordering::Relaxed)
    }

    /// Bytes that were read to compute digests; a known digest adds nothing.
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

    /// Transfers that have ended, for any reason.
    pub fn transfers_ended(&self) -> u64 {
        self.counters.transfers_ended.load(Ordering::Relaxed)
    }

    /// Transfers whose streams were all sent completely; in protocol 2, that their receiver ended.
    pub fn transfers_finished(&self) -> u64 {
        self.counters.transfers_finished.load(Ordering::Relaxed)
    }

    /// Connections that became streams of sessions of protocol 2.
    pub fn streams_opened(&self) -> u64 {
        self.counters.streams_opened.load(Ordering::Relaxed)
    }

    /// Streams that were sent completely; in protocol 2, that ended between two frames.
    pub fn streams_finished(&self) -> u64 {
        self.counters.streams_finished.load(Ordering::Relaxed)
    }

    /// Streams that broke.
    pub fn streams_failed(&self) -> u64 {
        self.counters.streams_failed.load(Ordering::Relaxed)
    }

    /// Connections that were refused as streams, or were neither streams nor HTTP.
    pub fn streams_refused(&self) -> u64 {
        self.counters.streams_refused.load(Ordering::Relaxed)
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
