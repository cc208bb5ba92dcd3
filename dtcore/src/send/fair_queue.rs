//! Fair use of the cores: clients take turns, and so do the sessions of each, however many streams they have.
//!
//! The runtime serves tasks in turn, so a session of 255 streams would get 255 times as much as one of a single stream, and
//! so would a client with 255 sessions. Here the streams of a session share its turns, and the sessions of a client theirs.
//! Work that waits for nothing holds a permit; whatever waits, for a disk or for the network, waits without one.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::sync::Lock;

/// For how many parties that do not wait their number of permits so far is kept.
const MAX_IDLE: usize = 64;

/// Hands out permits to the client that has had the fewest, among its sessions to the one that has had the fewest, and
/// within a session first come, first served.
#[derive(Debug)]
pub(crate) struct FairQueue {
    state: Lock<QueueState>,
}

#[derive(Debug)]
struct QueueState {
    n_free: usize,
    /// How many permits one client may hold at once.
    max_per_client: usize,
    /// How many permits each client holds.
    held: HashMap<IpAddr, usize>,
    /// As long as a permit is free, all clients that wait hold as many as they may.
    waiting: RoundRobin<IpAddr, RoundRobin<u64, Waiters>>,
}

/// Tasks that wait, in order of arrival.
type Waiters = VecDeque<oneshot::Sender<FairPermit>>;

/// Parties that wait, each with its own queue.
#[derive(Debug)]
struct RoundRobin<P, Q> {
    /// The parties that wait, each once, ordered by how many permits they have had.
    waiting: BTreeMap<(u64, P), Q>,
    /// How many permits parties have had; after a pause a party has no more credit than the others.
    had: HashMap<P, u64>,
    /// How many permits the party served last had had.
    level: u64,
}

/// The right to use a core; dropping it lets the next task run.
#[derive(Debug)]
pub(crate) struct FairPermit {
    /// Taken when the permit is returned.
    queue: Option<Arc<FairQueue>>,
    client: IpAddr,
}

impl FairQueue {
    /// As many permits as there are cores.
    pub(crate) fn new() -> Arc<Self> {
        let n_cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self::with_limits(n_cores, n_cores)
    }

    /// `n_permits` in total, of which one client holds `max_per_client` at most.
    pub(crate) fn with_limits(n_permits: usize, max_per_client: usize) -> Arc<Self> {
        let (held, waiting) = (HashMap::new(), RoundRobin::default());
        let state = QueueState { n_free: n_permits, max_per_client, held, waiting };
        Arc::new(Self { state: Lock::new(state) })
    }

    /// Waits for the next permit of a session of `client`; the task always yields once.
    ///
    /// Between taking a permit and using it the other tasks run. If permits were returned before any other task could ask
    /// for one, no task would ever wait, and the order would be the runtime's. And a runtime that never runs out of tasks
    /// looks for events only after 61 of them: by then the only stream of a session would have waited for 61 others.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place in the queue.
    pub(crate) async fn next(self: &Arc<Self>, client: IpAddr, session: u64) -> FairPermit {
        loop {
            let waiting = {
                let mut state = self.state.lock();
                if state.acquire(client) { None } else { Some(state.enqueue(client, session)) }
            };
            let permit = match waiting {
                None => FairPermit { queue: Some(Arc::clone(self)), client },
                Some(waiting) => match waiting.await {
                    Ok(permit) => permit,
                    // A sender is never dropped while its receiver exists; if it were, asking again would be right.
                    Err(_) => continue,
                },
            };
            tokio::task::yield_now().await;
            return permit;
        }
    }

    /// Takes the permit of `client` back, and passes it to the next task that waits.
    fn release(self: Arc<Self>, client: IpAddr) {
        let (mut queue, mut client) = (self, client);
        loop {
            let next = {
                let mut state = queue.state.lock();
                state.release(client);
                state.dequeue()
            };
            let Some((next_client, waiter)) = next else { return };
            match waiter.send(FairPermit { queue: Some(queue), client: next_client }) {
                Ok(()) => return,
                // That task has given up meanwhile.
                Err(mut permit) => match permit.queue.take() {
                    Some(back) => (queue, client) = (back, next_client),
                    None => return,
                },
            }
        }
    }
}

impl QueueState {
    /// Takes a permit for `client` if one is free and the client may hold another.
    fn acquire(&mut self, client: IpAddr) -> bool {
        if self.n_free == 0 || self.held.get(&client).is_some_and(|held| *held >= self.max_per_client) {
            return false;
        }
        self.n_free -= 1;
        *self.held.entry(client).or_default() += 1;
        true
    }

    fn release(&mut self, client: IpAddr) {
        self.n_free += 1;
        if let Some(held) = self.held.get_mut(&client) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(&client);
            }
        }
    }

    fn enqueue(&mut self, client: IpAddr, session: u64) -> oneshot::Receiver<FairPermit> {
        let (sender, receiver) = oneshot::channel();
        let waiters = self.waiting.queue_of(client).queue_of(session);
        // Cancelled waits must not pile up while permits are held for minutes.
        if waiters.len() == waiters.capacity() {
            waiters.retain(|waiter| !waiter.is_closed());
        }
        waiters.push_back(sender);
        receiver
    }

    /// Takes a free permit for the next task that waits for one.
    fn dequeue(&mut self) -> Option<(IpAddr, oneshot::Sender<FairPermit>)> {
        let Self { n_free, max_per_client, held, waiting } = self;
        let may_hold_more = |client: &IpAddr| held.get(client).is_none_or(|held| held < max_per_client);
        let (client, (_, waiter)) =
            waiting.next(may_hold_more, |sessions| sessions.next(|_| true, VecDeque::pop_front))?;
        *n_free -= 1;
        *held.entry(client).or_default() += 1;
        Some((client, waiter))
    }
}

/// The queue of one party.
trait PartyQueue: Default {
    fn is_empty(&self) -> bool;
}

impl PartyQueue for Waiters {
    fn is_empty(&self) -> bool {
        self.is_empty()
    }
}

impl<P: Copy + Ord + Hash, Q: PartyQueue> PartyQueue for RoundRobin<P, Q> {
    fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl<P: Copy + Ord + Hash, Q: PartyQueue> RoundRobin<P, Q> {
    /// The queue of a party, for a task that is about to wait in it.
    fn queue_of(&mut self, party: P) -> &mut Q {
        if self.had.len() > 2 * self.waiting.len() + MAX_IDLE {
            self.had.retain(|_, had| *had > self.level);
        }
        // For a party that waits already this changes nothing: it is not below the level.
        let had = self.had.entry(party).or_default();
        *had = (*had).max(self.level);
        self.waiting.entry((*had, party)).or_default()
    }

    /// The eligible party that has had the fewest permits, and what `take` takes out of its queue.
    fn next<T>(
        &mut self,
        is_eligible: impl Fn(&P) -> bool,
        take: impl FnOnce(&mut Q) -> Option<T>,
    ) -> Option<(P, T)> {
        let (level, party) = *self.waiting.keys().find(|(_, party)| is_eligible(party))?;
        let mut queue = self.waiting.remove(&(level, party))?;
        let next = take(&mut queue);
        self.requeue(party, level + 1, queue);
        // Parties that were not eligible get no credit for it.
        while let Some(skipped) = self.waiting.first_entry().filter(|first| first.key().0 < level) {
            let ((_, party), queue) = skipped.remove_entry();
            self.requeue(party, level, queue);
        }
        self.level = level;
        next.map(|next| (party, next))
    }

    fn requeue(&mut self, party: P, had: u64, queue: Q) {
        self.had.insert(party, had);
        if !queue.is_empty() {
            self.waiting.insert((had, party), queue);
        }
    }
}

impl<P, Q> Default for RoundRobin<P, Q> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), had: HashMap::new(), level: 0 }
    }
}

impl Drop for FairPermit {
    fn drop(&mut self) {
        if let Some(queue) = self.queue.take() {
            queue.release(self.client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::sync::atomic::{AtomicUsize, Ordering};

    const MANY: u64 = 1;
    const ONE: u64 = 2;
    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const THERE: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

    #[tokio::test]
    async fn one_stream_gets_as_many_permits_as_all_of_another_session_or_client() {
        let sessions = |n: u64| (HERE, if n == 0 { ONE } else { MANY });
        // All sessions have one stream each.
        let clients = |n: u64| (if n == 0 { THERE } else { HERE }, n);
        // One stream uses one permit at a time; of two, the others have the second one meanwhile.
        for (n_permits, most) in [(1, 1), (2, 2)] {
            for [many, one] in [share(n_permits, sessions).await, share(n_permits, clients).await] {
                // Each of the 255 gets one more at the end.
                assert!(many < most * one + 300, "{many} against {one}");
            }
        }
    }

    /// How many permits 255 streams and one stream get in the same time; `party` names them, the one has number 0.
    async fn share(n_permits: usize, party: impl Fn(u64) -> (IpAddr, u64)) -> [usize; 2] {
        let queue = FairQueue::with_limits(n_permits, n_permits);
        let counts: [Arc<AtomicUsize>; 2] = Default::default();
        let mut tasks = tokio::task::JoinSet::new();
        for n in (1..100).chain([0]).chain(100..256) {
            let (queue, own) = (Arc::clone(&queue), usize::from(n == 0));
            let (client, session) = party(n);
            let counts = counts.clone();
            tasks.spawn(async move {
                while counts[1].load(Ordering::Relaxed) < 100 {
                    let permit = queue.next(client, session).await;
                    counts[own].fetch_add(1, Ordering::Relaxed);
                    drop(permit);
                }
            });
        }
        tasks.join_all().await;
        assert_idle(&queue, n_permits);
        counts.map(|count| count.load(Ordering::Relaxed))
    }

    fn assert_idle(queue: &FairQueue, n_permits: usize) {
        let state = queue.state.lock();
        assert_eq!((state.n_free, state.held.len(), state.waiting.is_empty()), (n_permits, 0, true));
    }

    #[tokio::test]
    async fn cancelled_waits_are_skipped() {
        let queue = FairQueue::with_limits(1, 1);
        let held = queue.next(HERE, MANY).await;
        let mut cancelled = Box::pin(queue.next(HERE, MANY));
        let mut waiting = Box::pin(queue.next(HERE, ONE));
        assert!(cancelled.as_mut().now_or_never().is_none());
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(cancelled);
        drop(held);
        let held = waiting.await;
        let mut sent = Box::pin(queue.next(HERE, ONE));
        assert!(sent.as_mut().now_or_never().is_none());
        drop(held);
        // Its permit had been sent already.
        drop(sent);
        assert_idle(&queue, 1);
    }

    #[tokio::test]
    async fn cancelled_waits_do_not_pile_up() {
        let queue = FairQueue::with_limits(1, 1);
        let _held = queue.next(HERE, ONE).await;
        for _ in 0..1000 {
            assert!(queue.next(HERE, ONE).now_or_never().is_none());
        }
        let n_waiting = queue.state.lock().waiting.queue_of(HERE).queue_of(ONE).len();
        assert!(n_waiting < 10, "{n_waiting}");
    }

    /// The permit of a client in 10.0.0.0/24, if it is free.
    fn try_next(queue: &Arc<FairQueue>, last: u8) -> Option<FairPermit> {
        let mut next = Box::pin(queue.next(IpAddr::from([10, 0, 0, last]), ONE));
        // The first time it yields.
        next.as_mut().now_or_never().or_else(|| next.as_mut().now_or_never())
    }

    #[tokio::test]
    async fn one_client_gets_no_more_than_its_limit() {
        for (n_permits, limit) in [(3, 2), (4, 2), (8, 4)] {
            let queue = FairQueue::with_limits(n_permits, limit);
            let held: Vec<_> = std::iter::from_fn(|| try_next(&queue, 1)).collect();
            assert_eq!(held.len(), limit, "of {n_permits}");
            assert!(try_next(&queue, 2).is_some(), "of {n_permits}");
        }
    }

    #[tokio::test]
    async fn client_at_its_limit_blocks_no_other_client() {
        let queue = FairQueue::with_limits(3, 2);
        let (first, second) = (try_next(&queue, 1).unwrap(), try_next(&queue, 1).unwrap());
        let mut waiting: Vec<_> =
            (0..10).map(|_| Box::pin(queue.next(IpAddr::from([10, 0, 0, 1]), ONE))).collect();
        for next in &mut waiting {
            assert!(next.as_mut().now_or_never().is_none());
        }
        // Two that arrive later: one gets the last permit at once, the other is served before the client at its limit.
        let other = try_next(&queue, 2).unwrap();
        let mut third = Box::pin(queue.next(IpAddr::from([10, 0, 0, 3]), ONE));
        assert!(third.as_mut().now_or_never().is_none());
        drop(other);
        let third = third.await;
        assert!(waiting.iter_mut().all(|next| next.as_mut().now_or_never().is_none()));
        drop(first);
        // Within a client, first come, first served.
        let fourth = waiting.remove(0).await;
        assert!(waiting.iter_mut().all(|next| next.as_mut().now_or_never().is_none()));
        drop((waiting, second, third, fourth));
        assert_idle(&queue, 3);
    }
}
