//! How much may go on at once, in all and for one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts what is going on, and admits no more than a total and a share for each address.
#[derive(Debug)]
pub(super) struct AddressLimit {
    total: usize,
    per_address: usize,
    admitted: Mutex<Admitted>,
}

#[derive(Debug, Default)]
struct Admitted {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// What one transfer of the most streams holds: its streams, and the spare connections of protocol 1.
const WHOLE_TRANSFER: usize = 255 + 16;

impl AddressLimit {
    /// The connections that carry files, in a server that sends on `max_streams` at once.
    ///
    /// Half of them are one address's, and those of one whole transfer always: streams of protocol 1 that wait for their turn
    /// are connected, and a client may open all before it closes one.
    pub(super) fn of_data_connections(max_streams: NonZeroUsize) -> Arc<Self> {
        let total = max_streams.get().max(2 * WHOLE_TRANSFER);
        Arc::new(Self { total, per_address: total / 2, admitted: Mutex::default() })
    }

    pub(super) fn new(total: NonZeroUsize, per_address: NonZeroUsize) -> Arc<Self> {
        Arc::new(Self { total: total.get(), per_address: per_address.get(), admitted: Mutex::default() })
    }

    /// Takes a place for `address`, if there is one.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Admission> {
        let mut admitted = self.admitted();
        let of_address = admitted.by_address.get(&address).copied().unwrap_or(0);
        if admitted.total >= self.total || of_address >= self.per_address {
            return None;
        }
        admitted.total += 1;
        admitted.by_address.insert(address, of_address + 1);
        Some(Admission { limit: Arc::clone(self), address })
    }

    fn leave(&self, address: IpAddr) {
        let mut admitted = self.admitted();
        admitted.total = admitted.total.saturating_sub(1);
        let left = admitted.by_address.get(&address).map_or(0, |n| n.saturating_sub(1));
        if left == 0 {
            admitted.by_address.remove(&address);
        } else {
            admitted.by_address.insert(address, left);
        }
    }

    fn admitted(&self) -> MutexGuard<'_, Admitted> {
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place that was taken; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Admission {
    limit: Arc<AddressLimit>,
    address: IpAddr,
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.limit.leave(self.address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited_and_come_back() {
        let n = |n| NonZeroUsize::new(n).unwrap();
        let limit = AddressLimit::new(n(3), n(2));
        let [a, b]: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
        let first = limit.admit(a).unwrap();
        let _second = limit.admit(a).unwrap();
        assert!(limit.admit(a).is_none());
        let _third = limit.admit(b).unwrap();
        assert!(limit.admit(b).is_none());
        drop(first);
        let fourth = limit.admit(a).unwrap();
        assert!(limit.admit(b).is_none());
        drop(fourth);
        assert_eq!(limit.admitted().by_address.len(), 2);
    }
}
