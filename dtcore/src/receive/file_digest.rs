//! The sender's digests of the complete file: whether they are requested, known or needed at all, and how far the sender is with
//! them.

use std::time::Duration;

use crate::manifest::StreamId;
use crate::proto::v2::ReportedDigests;
use crate::sync::Lock;

/// How long the sender may be silent while it computes the digests; it reports each second that it does.
const SILENCE: Duration = Duration::from_secs(5);

/// The one keeper of what is known of the sender's digests.
#[derive(Debug)]
pub(super) struct FileDigest(Lock<DigestState>);

#[derive(Debug)]
struct DigestState {
    request: DigestRequest,
    /// Since when nothing else is awaited, and when the sender was last heard of.
    requested: Duration,
    heard: Duration,
    progress: HashProgress,
    /// Digests that did not match, and were requested again.
    is_rejected: bool,
}

/// Where the sender's digests are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum DigestRequest {
    /// The file arrives in one run, whose blocks are of one version of it. Their digests are proof enough.
    NotNeeded,
    NotRequested,
    RequestedOn(StreamId),
    Known(ReportedDigests),
}

/// What a comparison with the sender's digests is to be made with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Expected {
    /// Nothing: the blocks' digests are proof enough.
    Nothing,
    Digests(ReportedDigests),
}

/// What a report of the sender's progress means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Heard {
    /// Nothing was read since the last report, or it began again.
    Nothing,
    /// Something was read.
    Moved,
    /// The sender has never been as far.
    Farther,
}

impl FileDigest {
    /// Digests that are known from the offer, or not needed because the file arrives in one run, or must be requested.
    pub(super) fn new(known: Option<ReportedDigests>, is_one_run: bool, now: Duration) -> Self {
        let request = match known {
            Some(digests) => DigestRequest::Known(digests),
            None if is_one_run => DigestRequest::NotNeeded,
            None => DigestRequest::NotRequested,
        };
        let progress = HashProgress { moved: now, ..HashProgress::default() };
        Self(Lock::new(DigestState { request, requested: now, heard: now, progress, is_rejected: false }))
    }

    /// Whether they are needed and nobody has requested them.
    pub(super) fn is_to_request(&self) -> bool {
        self.0.lock().request == DigestRequest::NotRequested
    }

    /// They were requested on a stream.
    pub(super) fn requested_on(&self, stream: StreamId, now: Duration) {
        let mut state = self.0.lock();
        (state.request, state.requested) = (DigestRequest::RequestedOn(stream), now);
    }

    /// A stream was lost, and what was requested on it too.
    pub(super) fn lost(&self, stream: StreamId) {
        let mut state = self.0.lock();
        if state.request == DigestRequest::RequestedOn(stream) {
            state.request = DigestRequest::NotRequested;
        }
    }

    /// The file does not arrive in one run after all.
    pub(super) fn need(&self) {
        let mut state = self.0.lock();
        if state.request == DigestRequest::NotNeeded {
            state.request = DigestRequest::NotRequested;
        }
    }

    /// The sender reports that it has read `hashed` bytes; `true` if it has never been as far.
    pub(super) fn hashing(&self, hashed: u64, now: Duration) -> bool {
        let mut state = self.0.lock();
        state.heard = now;
        state.progress.heard(hashed, now) == Heard::Farther
    }

    /// They have arrived.
    pub(super) fn received(&self, digests: ReportedDigests) {
        self.0.lock().request = DigestRequest::Known(digests);
    }

    /// They did not match: requests them once more; `false` if that was done before.
    pub(super) fn reject(&self) -> bool {
        let mut state = self.0.lock();
        let is_first = !std::mem::replace(&mut state.is_rejected, true);
        if is_first {
            state.request = DigestRequest::NotRequested;
        }
        is_first
    }

    /// What the file is compared with, when that is known.
    pub(super) fn expected(&self) -> Option<Expected> {
        match self.0.lock().request {
            DigestRequest::NotNeeded => Some(Expected::Nothing),
            DigestRequest::Known(digests) => Some(Expected::Digests(digests)),
            DigestRequest::NotRequested | DigestRequest::RequestedOn(_) => None,
        }
    }

    /// From now on nothing else is awaited.
    pub(super) fn await_alone(&self, now: Duration) {
        let mut state = self.0.lock();
        state.heard = now;
        state.progress.begin(now);
    }

    /// Restarts all timers at `now`.
    pub(super) fn reset_timers(&self, now: Duration) {
        let mut state = self.0.lock();
        (state.requested, state.heard) = (now, now);
        state.progress.begin(now);
    }

    /// How long nothing was heard, how long there was no progress, and the stream that should have brought a sign of life.
    pub(super) fn waited(&self, now: Duration) -> Waited {
        let state = self.0.lock();
        let silent = now.saturating_sub(state.heard);
        let stalled_stream = match state.request {
            DigestRequest::RequestedOn(stream)
                if silent.min(now.saturating_sub(state.requested)) >= SILENCE =>
            {
                Some(stream)
            }
            DigestRequest::NotNeeded
            | DigestRequest::NotRequested
            | DigestRequest::RequestedOn(_)
            | DigestRequest::Known(_) => None,
        };
        Waited { silent, stuck: state.progress.stuck_for(now), stalled_stream }
    }
}

/// How long the digests have been awaited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Waited {
    /// For how long the sender was not heard of.
    pub(super) silent: Duration,
    /// For how long it has made no progress.
    pub(super) stuck: Duration,
    /// The stream to replace, because it was silent for too long.
    pub(super) stalled_stream: Option<StreamId>,
}

/// What the sender has reported of its hashing.
///
/// The count restarts whenever another server, or a restarted one, hashes; and it falls when one of two digests is done. So only
/// a count that is higher than the one before shows that the sender has read something, and only one that is higher than all
/// shows that the transfer is nearer to its end: a server that dies whenever it has hashed half of the file is not retried
/// indefinitely.
#[derive(Debug, Default)]
struct HashProgress {
    last: u64,
    most: u64,
    /// When it progressed, or was first expected to.
    moved: Duration,
}

impl HashProgress {
    fn begin(&mut self, now: Duration) {
        self.moved = now;
    }

    fn heard(&mut self, hashed: u64, now: Duration) -> Heard {
        let last = std::mem::replace(&mut self.last, hashed);
        if hashed <= last {
            return Heard::Nothing;
        }
        self.moved = now;
        if hashed <= self.most {
            return Heard::Moved;
        }
        self.most = hashed;
        Heard::Farther
    }

    fn stuck_for(&self, now: Duration) -> Duration {
        now.saturating_sub(self.moved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::StreamCount;

    /// Counts that arrive once a second, and what each means.
    fn check(counts: &[(u64, Heard)], stuck: u64) {
        let mut progress = HashProgress::default();
        progress.begin(Duration::from_secs(100));
        let mut now = Duration::from_secs(100);
        for (hashed, heard) in counts {
            now += Duration::from_secs(1);
            assert_eq!(progress.heard(*hashed, now), *heard, "{hashed} of {counts:?}");
        }
        assert_eq!(progress.stuck_for(now), Duration::from_secs(stuck), "{counts:?}");
    }

    #[test]
    fn only_growing_counts_are_progress() {
        use Heard::{Farther, Moved, Nothing};
        check(&[(1, Farther), (5, Farther), (9, Farther)], 0);
        check(&[(0, Nothing), (0, Nothing), (0, Nothing)], 3);
        check(&[(7, Farther), (7, Nothing), (7, Nothing)], 2);
        // Another server, or one of two digests is done: the restart itself means nothing.
        check(&[(9, Farther), (2, Nothing), (2, Nothing), (4, Moved), (9, Moved), (10, Farther)], 0);
        check(&[(9, Farther), (2, Nothing), (2, Nothing)], 2);
    }

    #[test]
    fn mismatch_is_requested_again_once() {
        let digests = |byte| ReportedDigests { blake3: [byte; 32].into(), md5: None };
        let digest = FileDigest::new(None, false, Duration::ZERO);
        digest.received(digests(1));
        assert!(digest.reject());
        assert!(digest.is_to_request());
        digest.received(digests(2));
        assert!(!digest.reject(), "the sender insists");
    }

    #[test]
    fn request_on_a_lost_stream_is_repeated() {
        let [one, two] = [0, 1].map(|id| StreamCount::new(2).unwrap().stream(id).unwrap());
        let digest = FileDigest::new(None, true, Duration::ZERO);
        assert_eq!((digest.is_to_request(), digest.expected()), (false, Some(Expected::Nothing)));
        digest.need();
        assert!(digest.is_to_request());
        digest.requested_on(one, Duration::ZERO);
        digest.lost(two);
        assert!(!digest.is_to_request());
        digest.lost(one);
        assert!(digest.is_to_request());
    }
}
