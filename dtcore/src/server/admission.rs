//! Limits: how much the server does at once, in total and for one address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroUsize;
use std::sync::Arc;

use tokio::sync::Semaphore;

use super::options::ServerOptions;
use crate::send::Places;
use crate::sync::Lock;

/// How many packs may be in memory at once: 256 MiB.
const MAX_PACKS: usize = 64;

/// The limits of a server.
#[derive(Debug)]
pub(crate) struct Limits {
    /// HTTP connections.
    pub(crate) connections: Arc<AddressLimit>,
    /// Transfers and sessions.
    pub(crate) transfers: Arc<AddressLimit>,
    /// Connections of which it is not known yet what they are, or which have not sent a complete hello.
    pub(crate) pending_handshakes: Arc<AddressLimit>,
    /// Connections that carry files, in both protocols.
    pub(crate) data_connections: Arc<AddressLimit>,
    /// Packs that are in memory.
    pub(crate) packs: Arc<Semaphore>,
    /// Streams that are sent at once, in both protocols.
    pub(crate) streams: Arc<Semaphore>,
}

impl Limits {
    pub(crate) fn new(options: &ServerOptions) -> Self {
        let half = |n: NonZeroUsize| NonZeroUsize::new(n.get() / 2).unwrap_or(NonZeroUsize::MIN);
        let halved = |n: NonZeroUsize| AddressLimit::new(n, half(n));
        let per_address = options.max_transfers_per_address.min(half(options.max_transfers));
        Self {
            connections: halved(options.max_connections),
            transfers: AddressLimit::new(options.max_transfers, per_address),
            pending_handshakes: halved(options.max_pending_handshakes),
            data_connections: AddressLimit::of_data_connections(options.max_streams),
            packs: Arc::new(Semaphore::new(MAX_PACKS)),
            streams: Arc::new(Semaphore::new(options.max_streams.get().min(Semaphore::MAX_PERMITS))),
        }
    }

    /// The places that a stream of protocol 2 takes, if there are some.
    pub(crate) fn stream_places(&self, peer: IpAddr) -> Option<Places> {
        let connection = Arc::new(self.data_connections.admit(peer)?);
        let stream = Arc::clone(&self.streams).try_acquire_owned().ok()?;
        Some(Places { _stream: Box::new(stream), connection })
    }
}

/// The address that stands for all addresses that share the limits of one.
///
/// In IPv6 the first 64 bits count: the rest is chosen by the host, which can have any number of addresses there (RFC 4291,
/// 2.5.4; RFC 8981).
pub(crate) fn client_key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        v4 @ IpAddr::V4(_) => v4,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !0 << 64)),
    }
}

/// A limit on something, in total and for each address.
#[derive(Debug)]
pub(crate) struct AddressLimit {
    total: usize,
    per_address: usize,
    admitted: Lock<Admitted>,
}

#[derive(Debug, Default)]
struct Admitted {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// The most connections of one transfer: its streams, and the spare connections of protocol 1.
const LARGEST_TRANSFER: usize = 255 + 16;

impl AddressLimit {
    /// The limit on connections that carry files, in a server that sends on `max_streams` at once.
    ///
    /// One address has half of them, and always enough for one transfer: streams of protocol 1 that wait for their turn
    /// are connected, and a client may open all before it closes one.
    pub(crate) fn of_data_connections(max_streams: NonZeroUsize) -> Arc<Self> {
        let total = max_streams.get().max(2 * LARGEST_TRANSFER);
        Arc::new(Self { total, per_address: total / 2, admitted: Lock::default() })
    }

    pub(crate) fn new(total: NonZeroUsize, per_address: NonZeroUsize) -> Arc<Self> {
        Arc::new(Self { total: total.get(), per_address: per_address.get(), admitted: Lock::default() })
    }

    /// Takes a place for `address` and those that share its limits, if there is one.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Permit> {
        let address = client_key(address);
        let mut admitted = self.admitted.lock();
        let of_address = admitted.by_address.get(&address).copied().unwrap_or(0);
        if admitted.total >= self.total || of_address >= self.per_address {
            return None;
        }
        admitted.total += 1;
        admitted.by_address.insert(address, of_address + 1);
        Some(Permit { limit: Arc::clone(self), address })
    }

    /// How many places are taken.
    #[cfg(test)]
    pub(crate) fn n_admitted(&self) -> usize {
        self.admitted.lock().total
    }

    fn release(&self, address: IpAddr) {
        let mut admitted = self.admitted.lock();
        admitted.total -= 1;
        let left = admitted.by_address.get(&address).map_or(0, |n| n - 1);
        if left == 0 {
            admitted.by_address.remove(&address);
        } else {
            admitted.by_address.insert(address, left);
        }
    }
}

/// A place within a limit; dropping it frees the place.
#[derive(Debug)]
pub(crate) struct Permit {
    limit: Arc<AddressLimit>,
    address: IpAddr,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.limit.release(self.address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_host_share_a_limit() {
        for (address, expected) in [
            ("10.0.0.1", "10.0.0.1"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("2001:db8:1:2::", "2001:db8:1:2::"),
            ("2001:db8:1:3::", "2001:db8:1:3::"),
            ("::1", "::"),
        ] {
            assert_eq!(
                client_key(address.parse().unwrap()),
                expected.parse::<IpAddr>().unwrap(),
                "{address}"
            );
        }
        let n = |n| NonZeroUsize::new(n).unwrap();
        let limit = AddressLimit::new(n(3), n(1));
        let _first = limit.admit("2001:db8::1".parse().unwrap()).unwrap();
        assert!(limit.admit("2001:db8::2".parse().unwrap()).is_none());
        assert!(limit.admit("2001:db8:0:1::1".parse().unwrap()).is_some());
    }

    #[test]
    fn places_are_limited_and_can_be_reused() {
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
        assert_eq!(limit.admitted.lock().by_address.len(), 2);
    }
}
