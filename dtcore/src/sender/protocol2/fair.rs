//! Who may use a core when: sessions in turn, however many streams each of them has.
//!
//! The runtime serves tasks in turn, so a session of 255 streams would get 255 times what one of a single stream gets.
//! Here the streams of a session share its turn. Work that waits for nothing is done in a turn; whatever waits, for a
//! disk or for the network, waits without one.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::sender::TransferId;

/// Of how many sessions that do not wait is kept how many turns they have had.
const MOST_AWAY: usize = 64;

/// Hands out turns, to the session that has had the fewest, and within a session first come, first served.
#[derive(Debug)]
pub(in crate::sender) struct FairTurns {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    n_free: usize,
    /// The sessions that wait, each once, by how many turns they have had.
    waiting: BTreeMap<(u64, TransferId), VecDeque<oneshot::Sender<FairTurn>>>,
    /// The turns that sessions have had; who was away does not come back with more credit than the others have.
    had: HashMap<TransferId, u64>,
    /// How many turns the session had had that got the last one.
    level: u64,
}

/// The right to use a core for a moment; dropping it lets the next one go on.
#[derive(Debug)]
pub(super) struct FairTurn {
    /// Taken when the turn goes back.
    turns: Option<Arc<FairTurns>>,
}

impl FairTurns {
    /// As many turns at once as there are cores.
    pub(in crate::sender) fn new() -> Arc<Self> {
        Self::with_turns(std::thread::available_parallelism().map_or(1, usize::from))
    }

    fn with_turns(n_free: usize) -> Arc<Self> {
        let state = State { n_free, ..State::default() };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// The next turn of `session`; the caller's task always yields once.
    ///
    /// Between taking a turn and using it the others run. As long as turns were given back before anybody else could ask
    /// for one, nobody would ever wait, and the order would be the runtime's. And a runtime that never runs out of tasks
    /// looks for events only after 61 of them: by then the one stream of a session would have waited for 61 others.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place in the queue.
    pub(super) async fn next(self: &Arc<Self>, session: TransferId) -> FairTurn {
        loop {
            let waiting = {
                let mut state = self.state();
                if state.n_free > 0 {
                    state.n_free -= 1;
                    None
                } else {
                    Some(state.enqueue(session))
                }
            };
            let Some(waiting) = waiting else {
                let turn = FairTurn { turns: Some(Arc::clone(self)) };
                tokio::task::yield_now().await;
                return turn;
            };
            // It is never dropped unsent; if it were, asking again would be right.
            if let Ok(turn) = waiting.await {
                tokio::task::yield_now().await;
                return turn;
            }
        }
    }

    /// Gives a turn to whoever is next, or keeps it for later.
    fn give(self: Arc<Self>) {
        let mut turns = self;
        loop {
            let next = {
                let mut state = turns.state();
                let next = state.dequeue();
                if next.is_none() {
                    state.n_free += 1;
                }
                next
            };
            let Some(next) = next else { return };
            match next.send(FairTurn { turns: Some(turns) }) {
                Ok(()) => return,
                // That one has given up its place meanwhile.
                Err(mut turn) => match turn.turns.take() {
                    Some(back) => turns = back,
                    None => return,
                },
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change of the state is complete in itself, so a panic elsewhere leaves it sound.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn enqueue(&mut self, session: TransferId) -> oneshot::Receiver<FairTurn> {
        let (giver, turn) = oneshot::channel();
        if self.had.len() > 2 * self.waiting.len() + MOST_AWAY {
            self.had.retain(|_, had| *had > self.level);
        }
        // That of a session which waits already is not below the level.
        let had = self.had.entry(session).or_default();
        *had = (*had).max(self.level);
        self.waiting.entry((*had, session)).or_default().push_back(giver);
        turn
    }

    /// The next of the session that has had the fewest turns.
    fn dequeue(&mut self) -> Option<oneshot::Sender<FairTurn>> {
        let ((had, session), mut queue) = self.waiting.pop_first()?;
        let next = queue.pop_front();
        self.level = had;
        self.had.insert(session, had + 1);
        if !queue.is_empty() {
            self.waiting.insert((had + 1, session), queue);
        }
        next
    }
}

impl Drop for FairTurn {
    fn drop(&mut self) {
        if let Some(turns) = self.turns.take() {
            turns.give();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const MANY: TransferId = TransferId(1);
    const ONE: TransferId = TransferId(2);

    #[tokio::test]
    async fn one_stream_gets_as_many_turns_as_all_of_another_session() {
        // One stream uses one turn at a time; of two, the others have the second one meanwhile.
        for (n_turns, most) in [(1, 1), (2, 2)] {
            let [many, one] = share(n_turns).await;
            // All 255 come once more when it is over.
            assert!(many < most * one + 300, "{many} against {one}");
        }
    }

    /// How many turns 255 streams of one session and one of another get, in as much time.
    async fn share(n_turns: usize) -> [usize; 2] {
        let turns = FairTurns::with_turns(n_turns);
        let counts: [Arc<AtomicUsize>; 2] = Default::default();
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..256 {
            let (turns, own) = (Arc::clone(&turns), usize::from(n == 100));
            let counts = counts.clone();
            tasks.spawn(async move {
                while counts[1].load(Ordering::Relaxed) < 100 {
                    let turn = turns.next([MANY, ONE][own]).await;
                    counts[own].fetch_add(1, Ordering::Relaxed);
                    drop(turn);
                }
            });
        }
        tasks.join_all().await;
        assert_eq!(turns.state().n_free, n_turns);
        assert!(turns.state().waiting.is_empty());
        counts.map(|count| count.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn who_gave_up_is_passed_over() {
        let turns = FairTurns::with_turns(1);
        let held = turns.next(MANY).await;
        let mut given_up = Box::pin(turns.next(MANY));
        let mut waiting = Box::pin(turns.next(ONE));
        assert!(given_up.as_mut().now_or_never().is_none());
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(given_up);
        drop(held);
        let held = waiting.await;
        let mut sent = Box::pin(turns.next(ONE));
        assert!(sent.as_mut().now_or_never().is_none());
        drop(held);
        // Its turn was on the way to it already.
        drop(sent);
        assert_eq!(turns.state().n_free, 1);
    }
}
