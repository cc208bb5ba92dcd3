//! Who may use a core when: addresses in turn, and the sessions of each, however many streams they have.
//!
//! The runtime serves tasks in turn, so a session of 255 streams would get 255 times what one of a single stream gets, and
//! so would an address of 255 sessions. Here the streams of a session share its turn, and the sessions of an address theirs.
//! Work that waits for nothing is done in a turn; whatever waits, for a disk or for the network, waits without one.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::server::TransferId;

/// Of how many parties that do not wait is kept how many turns they have had.
const MOST_AWAY: usize = 64;

/// Hands out turns, to the address that has had the fewest, of its sessions to the one that has had the fewest, and within
/// a session first come, first served.
#[derive(Debug)]
pub(crate) struct FairQueue {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    n_free: usize,
    waiting: RoundRobin<IpAddr, RoundRobin<TransferId, Line>>,
}

/// Streams that wait, in the order in which they came.
type Line = VecDeque<oneshot::Sender<FairPermit>>;

/// Parties that wait, each with a line of its own.
#[derive(Debug)]
struct RoundRobin<P, L> {
    /// The parties that wait, each once, by how many turns they have had.
    waiting: BTreeMap<(u64, P), L>,
    /// The turns that parties have had; who was away does not come back with more credit than the others have.
    had: HashMap<P, u64>,
    /// How many turns the party had had that got the last one.
    level: u64,
}

/// The right to use a core for a moment; dropping it lets the next one go on.
#[derive(Debug)]
pub(crate) struct FairPermit {
    /// Taken when the turn goes back.
    turns: Option<Arc<FairQueue>>,
}

impl FairQueue {
    /// As many turns at once as there are cores.
    pub(crate) fn new() -> Arc<Self> {
        Self::with_turns(std::thread::available_parallelism().map_or(1, usize::from))
    }

    fn with_turns(n_free: usize) -> Arc<Self> {
        let state = State { n_free, waiting: RoundRobin::default() };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// The next turn of a session of `address`; the caller's task always yields once.
    ///
    /// Between taking a turn and using it the others run. As long as turns were given back before anybody else could ask
    /// for one, nobody would ever wait, and the order would be the runtime's. And a runtime that never runs out of tasks
    /// looks for events only after 61 of them: by then the one stream of a session would have waited for 61 others.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place in the queue.
    pub(crate) async fn next(self: &Arc<Self>, address: IpAddr, session: TransferId) -> FairPermit {
        loop {
            let waiting = {
                let mut state = self.state();
                if state.n_free > 0 {
                    state.n_free -= 1;
                    None
                } else {
                    Some(state.enqueue(address, session))
                }
            };
            let Some(waiting) = waiting else {
                let turn = FairPermit { turns: Some(Arc::clone(self)) };
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
            match next.send(FairPermit { turns: Some(turns) }) {
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
    fn enqueue(&mut self, address: IpAddr, session: TransferId) -> oneshot::Receiver<FairPermit> {
        let (giver, turn) = oneshot::channel();
        self.waiting.line(address).line(session).push_back(giver);
        turn
    }

    /// The next of the address, and there of the session, that has had the fewest turns.
    fn dequeue(&mut self) -> Option<oneshot::Sender<FairPermit>> {
        self.waiting.next(|sessions| sessions.next(VecDeque::pop_front))
    }
}

/// What a party has in a rota: whether anybody stands there.
trait Waiting: Default {
    fn is_over(&self) -> bool;
}

impl Waiting for Line {
    fn is_over(&self) -> bool {
        self.is_empty()
    }
}

impl<P: Copy + Ord + Hash, L: Waiting> Waiting for RoundRobin<P, L> {
    fn is_over(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl<P: Copy + Ord + Hash, L: Waiting> RoundRobin<P, L> {
    /// The line of a party, for somebody who comes to stand in it.
    fn line(&mut self, party: P) -> &mut L {
        if self.had.len() > 2 * self.waiting.len() + MOST_AWAY {
            self.had.retain(|_, had| *had > self.level);
        }
        // That of a party which waits already is not below the level.
        let had = self.had.entry(party).or_default();
        *had = (*had).max(self.level);
        self.waiting.entry((*had, party)).or_default()
    }

    /// What `take` takes out of the line of the party that has had the fewest turns.
    fn next<T>(&mut self, take: impl FnOnce(&mut L) -> Option<T>) -> Option<T> {
        let ((had, party), mut line) = self.waiting.pop_first()?;
        let next = take(&mut line);
        self.level = had;
        self.had.insert(party, had + 1);
        if !line.is_over() {
            self.waiting.insert((had + 1, party), line);
        }
        next
    }
}

impl<P, L> Default for RoundRobin<P, L> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), had: HashMap::new(), level: 0 }
    }
}

impl Drop for FairPermit {
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
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::sync::atomic::{AtomicUsize, Ordering};

    const MANY: TransferId = TransferId(1);
    const ONE: TransferId = TransferId(2);
    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const THERE: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

    #[tokio::test]
    async fn one_stream_gets_as_many_turns_as_all_of_another_session_or_address() {
        let sessions = |n: u64| (HERE, if n == 0 { ONE } else { MANY });
        // All sessions of one stream each.
        let addresses = |n: u64| (if n == 0 { THERE } else { HERE }, TransferId(n));
        // One stream uses one turn at a time; of two, the others have the second one meanwhile.
        for (n_turns, most) in [(1, 1), (2, 2)] {
            for [many, one] in [share(n_turns, sessions).await, share(n_turns, addresses).await] {
                // All 255 come once more when it is over.
                assert!(many < most * one + 300, "{many} against {one}");
            }
        }
    }

    /// How many turns 255 streams and one get, in as much time; `party` says who they are, the one has number 0.
    async fn share(n_turns: usize, party: impl Fn(u64) -> (IpAddr, TransferId)) -> [usize; 2] {
        let turns = FairQueue::with_turns(n_turns);
        let counts: [Arc<AtomicUsize>; 2] = Default::default();
        let mut tasks = tokio::task::JoinSet::new();
        for n in (1..100).chain([0]).chain(100..256) {
            let (turns, own) = (Arc::clone(&turns), usize::from(n == 0));
            let (address, session) = party(n);
            let counts = counts.clone();
            tasks.spawn(async move {
                while counts[1].load(Ordering::Relaxed) < 100 {
                    let turn = turns.next(address, session).await;
                    counts[own].fetch_add(1, Ordering::Relaxed);
                    drop(turn);
                }
            });
        }
        tasks.join_all().await;
        assert_eq!(turns.state().n_free, n_turns);
        assert!(turns.state().waiting.is_over());
        counts.map(|count| count.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn who_gave_up_is_passed_over() {
        let turns = FairQueue::with_turns(1);
        let held = turns.next(HERE, MANY).await;
        let mut given_up = Box::pin(turns.next(HERE, MANY));
        let mut waiting = Box::pin(turns.next(HERE, ONE));
        assert!(given_up.as_mut().now_or_never().is_none());
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(given_up);
        drop(held);
        let held = waiting.await;
        let mut sent = Box::pin(turns.next(HERE, ONE));
        assert!(sent.as_mut().now_or_never().is_none());
        drop(held);
        // Its turn was on the way to it already.
        drop(sent);
        assert_eq!(turns.state().n_free, 1);
    }
}
