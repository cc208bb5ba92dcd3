//! Which received bytes are next in the file: hands them to the follower as soon as they are.

use std::sync::Arc;

use crate::manifest::{ByteRange, Frontier, InconsistentLengths, StaticSplit, StreamCount, StreamId};
use crate::receive::in_order::InOrderReader;
use crate::sink::Store;

/// The order of the file's bytes over the streams.
#[derive(Debug)]
pub(super) enum Order {
    /// The size is known: every stream fills its own range of one store.
    Known { frontier: Frontier, store: Arc<dyn Store>, size: u64 },
    /// The size is known only when all streams have ended: each fills a store of its own from the start.
    Unknown(Successive),
}

impl Order {
    pub(super) fn known(split: StaticSplit, store: Arc<dyn Store>) -> Self {
        Self::Known { frontier: Frontier::new(split), store, size: split.size() }
    }

    pub(super) fn unknown(streams: StreamCount, stores: Vec<Arc<dyn Store>>) -> Self {
        let parts =
            stores.into_iter().map(|store| Part { store: Some(store), filled: 0, pushed: 0, ended: false });
        debug_assert_eq!(parts.len(), usize::from(streams.value()), "a store for every stream");
        Self::Unknown(Successive { parts: parts.collect(), current: 0 })
    }

    /// Records that `n` more bytes of `stream` are stored.
    pub(super) fn advance(&mut self, stream: StreamId, n: u64, follower: &InOrderReader) {
        match self {
            Self::Known { frontier, store, .. } => follower.push(store, frontier.advance(stream, n)),
            Self::Unknown(successive) => {
                if let Some(part) = successive.parts.get_mut(stream.index()) {
                    part.filled = part.filled.saturating_add(n);
                }
                successive.hand_over(follower);
            }
        }
    }

    /// Records that `stream` has ended.
    pub(super) fn end(&mut self, stream: StreamId, follower: &InOrderReader) {
        if let Self::Unknown(successive) = self {
            if let Some(part) = successive.parts.get_mut(stream.index()) {
                part.ended = true;
            }
            successive.hand_over(follower);
        }
    }

    /// The file's size, when all streams have ended.
    pub(super) fn size(&self) -> Result<u64, InconsistentLengths> {
        match self {
            Self::Known { size, .. } => Ok(*size),
            Self::Unknown(successive) => {
                let lengths: Vec<u64> = successive.parts.iter().map(|part| part.filled).collect();
                StaticSplit::from_lengths(&lengths).map(|split| split.size())
            }
        }
    }
}

/// Parts of unknown length: the next one's place is known when the one before it has ended.
#[derive(Debug)]
pub(super) struct Successive {
    parts: Vec<Part>,
    /// The first part that has not ended, or of which bytes are still to be handed over.
    current: usize,
}

#[derive(Debug)]
struct Part {
    /// Given up when all of it is handed over, so that its disk space is free as soon as it has been moved.
    store: Option<Arc<dyn Store>>,
    filled: u64,
    pushed: u64,
    ended: bool,
}

impl Successive {
    fn hand_over(&mut self, follower: &InOrderReader) {
        while let Some(part) = self.parts.get_mut(self.current) {
            if let Some(store) = &part.store {
                follower.push(store, ByteRange::new(part.pushed, part.filled));
                part.pushed = part.filled;
            }
            if !part.ended {
                return;
            }
            part.store = None;
            self.current += 1;
        }
    }
}
