//! What the course of a transfer asks of its streams' shared state, and tells it.

use std::time::Duration;

use tokio::time::timeout;

use super::{Shared, Whole};
use crate::digest::Blake3Digest;
use crate::error::TransferError;
use crate::event::{Event, Progress, RecoveryStats};
use crate::proto::v2::WholeDigestsReply;
use crate::receive::in_order::InOrderReader;
use crate::receive::wake::Line;
use crate::schedule::Fault;

/// How long the server may say nothing while it computes the digests of the whole file; it says each second that it does.
const DIGESTS: Duration = Duration::from_secs(5);

/// The streams are looked after many times in this time, unless the program was stopped.
const STOPPED: Duration = Duration::from_secs(1);

/// What the course of the transfer looks at.
impl Shared {
    /// Waits until the transfer may be over.
    pub(crate) async fn ended(&self) {
        self.ended.notified().await;
    }

    /// The error that ended it, the digests if it is complete, or neither yet.
    pub(crate) fn outcome(&self) -> Result<Option<(Blake3Digest, WholeDigestsReply)>, TransferError> {
        let mut state = self.state();
        if let Some(error) = state.failure.take() {
            return Err(error);
        }
        match state.whole {
            Whole::Known(whole) if state.scheduler.is_complete() => {
                let digests: Option<Vec<_>> = state.digests.iter().copied().collect();
                let own = digests.and_then(|digests| Blake3Digest::of_blocks(&self.manifest, &digests));
                Ok(own.map(|own| (own, whole)))
            }
            Whole::Known(_) | Whole::NotAsked | Whole::AskedOn(_) => Ok(None),
        }
    }

    /// Looks after the streams: ends those that bring nothing, and fails when none does for too long.
    pub(crate) fn watch(&self, now: Duration) -> Result<(), TransferError> {
        let mut state = self.state();
        if now.saturating_sub(state.watched) > STOPPED {
            state.reset_timers(now);
        }
        state.watched = now;
        let mut faults = state.scheduler.tick(now);
        let mut silent = state.scheduler.silent_for(now);
        let mut stuck = Duration::ZERO;
        if state.scheduler.is_complete() {
            silent = now.saturating_sub(state.whole_heard);
            stuck = state.hashing.stuck_for(now);
            if let Whole::AskedOn(stream) = state.whole
                && silent.min(now.saturating_sub(state.whole_asked)) >= DIGESTS
            {
                faults.push((stream, Fault::Stalled));
            }
        }
        // Whether a second copy of a block is state its bytes is a matter of time.
        if state.scheduler.is_all_assigned() {
            self.wake_all();
        } else {
            state.idle.iter().filter_map(|stream| self.line(*stream)).for_each(Line::wake);
        }
        drop(state);
        for (stream, fault) in faults {
            if let Some(line) = self.line(stream) {
                line.replace(fault);
            }
        }
        let late = |activity, waited| TransferError::TimedOut { server: self.server(), activity, waited };
        if silent >= self.options.stall_timeout {
            return Err(late("the streams were open", self.options.stall_timeout));
        }
        // As in protocol 1: others' files may be hashed before this one.
        if stuck >= self.options.answer_timeout {
            return Err(late("it was computing the file's digests", self.options.answer_timeout));
        }
        Ok(())
    }

    /// Nothing could come so far, because all streams went a way that leads nowhere.
    pub(crate) fn reset_timers(&self) {
        let now = self.now();
        self.state().reset_timers(now);
    }

    /// Everything has come and is right: tells the server so on every connection, and waits until it is told, or until `limit`.
    pub(crate) async fn accept(&self, limit: Duration) {
        self.state().is_accepted = true;
        self.wake_all();
        let told = async {
            while self.state().n_talking > 0 {
                self.quiet.notified().await;
            }
        };
        // The server that is not told finds out by itself, later.
        let _ = timeout(limit, told).await;
    }

    pub(crate) fn is_accepted(&self) -> bool {
        self.state().is_accepted
    }

    /// Waits until the follower has moved; without one, for ever.
    pub(crate) async fn moved(&self) {
        match &self.follower {
            Some(follower) => follower.moved().await,
            None => std::future::pending().await,
        }
    }

    /// The follower has read up to here, so that more may be fetched.
    pub(crate) fn consumed(&self) {
        if let Some(follower) = &self.follower {
            self.state().scheduler.consumed(follower.position());
            self.wake_all();
        }
    }

    pub(crate) fn follower(&self) -> Option<&InOrderReader> {
        self.follower.as_ref()
    }

    /// Tells how far the transfer is.
    pub(crate) fn tell(&self) {
        self.events.progress(self.progress());
    }

    /// Tells that what is proven stays, if anything is.
    pub(crate) fn emit_resumable(&self) {
        let bytes = self.state().verified;
        if bytes > 0 {
            self.events.send(Event::Resumable { bytes });
        }
    }

    fn progress(&self) -> Progress {
        let state = self.state();
        let there = state.resumed.saturating_add(state.received);
        Progress {
            size: Some(self.manifest.size()),
            received: there.saturating_sub(state.trouble.wasted_bytes).min(self.manifest.size()),
            verified: state.verified,
            open_streams: state.n_open,
            elapsed: self.now(),
        }
    }

    /// Bytes received, how long it took, and what went wrong.
    pub(crate) fn account(&self) -> (u64, Duration, RecoveryStats) {
        let state = self.state();
        (state.received, state.received_after, state.trouble)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receive::tests::{Scene, shared_of};

    const TICK: Duration = Duration::from_millis(50);
    const LIMIT: Duration = Duration::from_secs(10);

    /// A transfer whose beginning took longer than anything may be silent, with all of its blocks there or none.
    fn begun_late() -> [Shared; 2] {
        [false, true].map(|is_there| {
            let scene = Scene { took: LIMIT * 2, is_there, stall_timeout: LIMIT, ..Scene::default() };
            shared_of(scene)
        })
    }

    /// How long it is from `now` until nothing has come for too long.
    fn patience(shared: &Shared, now: Duration) -> Duration {
        let mut waited = Duration::ZERO;
        while shared.watch(now + waited).is_ok() {
            waited += TICK;
        }
        waited
    }

    #[test]
    fn a_long_beginning_is_no_silence() {
        for shared in begun_late() {
            let now = shared.now();
            assert!(now >= LIMIT * 2);
            assert!((LIMIT / 2..=LIMIT).contains(&patience(&shared, now)));
        }
    }

    #[test]
    fn a_program_that_was_stopped_has_not_waited() {
        for shared in begun_late() {
            let now = shared.now();
            shared.watch(now).unwrap();
            assert_eq!(patience(&shared, now + Duration::from_secs(600)), LIMIT);
        }
    }
}
