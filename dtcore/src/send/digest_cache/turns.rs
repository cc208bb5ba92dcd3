//! Who may hash when: about one job for each core, and never all of them for one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Hands out turns, in all and for each address first come, first served.
///
/// An address that has its share running waits for itself only: it asks for one of the turns of all when one of its
/// own is free, so it never stands in front of others.
#[derive(Debug)]
pub(crate) struct Turns {
    all: Arc<Semaphore>,
    share: usize,
    /// The turns of each address that has some or waits for one.
    by_address: Mutex<HashMap<IpAddr, Weak<Semaphore>>>,
}

/// The right to hash one file; dropping it lets the next one go on.
#[derive(Debug)]
pub(crate) struct Turn {
    _of_all: OwnedSemaphorePermit,
    _of_address: OwnedSemaphorePermit,
}

impl Turns {
    /// A turn for each core, half of them for one address.
    ///
    /// With few cores there are three turns, two for one address: a small file does not wait until the large one is
    /// hashed that the same address asked for before, and another address does not wait for either.
    pub(crate) fn new(n_cores: usize) -> Self {
        let total = n_cores.clamp(3, Semaphore::MAX_PERMITS);
        Self { all: Arc::new(Semaphore::new(total)), share: (total / 2).max(2), by_address: Mutex::default() }
    }

    /// The next turn of `address`; `None` never comes, as nothing closes the turns.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place in the queue.
    pub(crate) async fn next(&self, address: IpAddr) -> Option<Turn> {
        let of_address = self.of_address(address).acquire_owned().await.ok()?;
        let of_all = Arc::clone(&self.all).acquire_owned().await.ok()?;
        Some(Turn { _of_all: of_all, _of_address: of_address })
    }

    fn of_address(&self, address: IpAddr) -> Arc<Semaphore> {
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = by_address.get(&address).and_then(Weak::upgrade) {
            return known;
        }
        by_address.retain(|_, turns| turns.strong_count() > 0);
        let turns = Arc::new(Semaphore::new(self.share));
        by_address.insert(address, Arc::downgrade(&turns));
        turns
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    /// The turn, if it is there at once.
    fn now(turns: &Turns, last: u8) -> Option<Turn> {
        turns.next(address(last)).now_or_never().flatten()
    }

    #[tokio::test]
    async fn no_address_has_all_turns() {
        for (n_cores, share) in [(1, 2), (2, 2), (3, 2), (4, 2), (8, 4)] {
            let turns = Turns::new(n_cores);
            let held: Vec<_> = std::iter::from_fn(|| now(&turns, 1)).collect();
            assert_eq!(held.len(), share, "{n_cores} cores");
            assert!(now(&turns, 2).is_some(), "{n_cores} cores");
        }
    }

    #[tokio::test]
    async fn who_waits_for_itself_blocks_nobody() {
        let turns = Turns::new(3);
        let (first, second) = (now(&turns, 1).unwrap(), now(&turns, 1).unwrap());
        let mut waiting: Vec<_> = (0..10).map(|_| Box::pin(turns.next(address(1)))).collect();
        for next in &mut waiting {
            assert!(next.as_mut().now_or_never().is_none());
        }
        let other = now(&turns, 2).unwrap();
        assert!(now(&turns, 3).is_none());
        drop(first);
        // The one that asked first comes first.
        assert!(waiting[0].as_mut().now_or_never().is_some());
        drop(waiting);
        drop(other);
        assert_eq!(turns.all.available_permits(), 2);
        drop(second);
        let _third = now(&turns, 3).unwrap();
        assert_eq!(turns.by_address.lock().unwrap().len(), 1);
    }
}
