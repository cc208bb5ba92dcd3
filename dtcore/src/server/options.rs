//! The options of a server: what it serves, where, and how much of it at once.

use std::future::Future;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::{NonZeroU64, NonZeroUsize};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use super::auth::{Authorization, AuthorizeRequest, Authorizer};
use super::upload_options::UploadPolicy;
use crate::num::bounded;
use crate::send::digest_cache::MIN_AGE;

/// How a [`Server`](super::Server) is set up; the defaults suit a LAN and a wide-area link alike.
///
/// Where a limit is for one address, all IPv6 addresses that begin with the same 64 bits count as one. Durations are cut to
/// 100 years.
///
/// ```
/// use dtcore::ServerOptions;
/// let options = ServerOptions::new("/srv/files").port(9000).transfer_ports("9100-9199".parse()?);
/// # Ok::<(), dtcore::InvalidPortRange>(())
/// ```
#[derive(Clone, Debug)]
pub struct ServerOptions {
    root: PathBuf,
    address: SocketAddr,
    pub(crate) authorizer: Option<Authorizer>,
    pub(crate) uploads: Option<UploadPolicy>,
    pub(crate) listing: bool,
    pub(crate) transfer_ports: Option<PortRange>,
    pub(crate) max_connections: NonZeroUsize,
    pub(crate) max_transfers: NonZeroUsize,
    pub(crate) max_transfers_per_address: NonZeroUsize,
    pub(crate) max_streams: NonZeroUsize,
    /// How many connections may not have said yet what they are, half of them from one address.
    pub(crate) max_pending_handshakes: NonZeroUsize,
    pub(crate) request_timeout: Duration,
    pub(crate) transfer_expiry: Duration,
    pub(crate) session_expiry: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) stall_timeout: Duration,
    pub(crate) drain_timeout: Duration,
    pub(crate) rate_limit: Option<NonZeroU64>,
    /// How long a file must have been left alone before its digests are remembered.
    pub(crate) min_age: Duration,
}

/// Serves the current directory on a port that the system chooses.
impl Default for ServerOptions {
    fn default() -> Self {
        let n = |n| NonZeroUsize::new(n).unwrap_or(NonZeroUsize::MIN);
        Self {
            root: PathBuf::from("."),
            address: SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
            authorizer: None,
            uploads: None,
            listing: true,
            transfer_ports: None,
            max_connections: n(512),
            max_transfers: n(1024),
            max_transfers_per_address: n(256),
            max_streams: n(4096),
            // Two clients of one address may connect 255 streams each before they have their offers.
            max_pending_handshakes: n(1024),
            request_timeout: Duration::from_secs(10),
            transfer_expiry: Duration::from_secs(30),
            session_expiry: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(300),
            stall_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(1),
            rate_limit: None,
            min_age: MIN_AGE,
        }
    }
}

impl ServerOptions {
    /// Serves the files below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), ..Self::default() }
    }

    /// The port to listen on; 0, the default, lets the system choose one.
    pub fn port(mut self, port: u16) -> Self {
        self.address.set_port(port);
        self
    }

    /// The address to listen on; the default is every address, IPv6 and IPv4.
    pub fn bind_address(mut self, address: IpAddr) -> Self {
        self.address.set_ip(address);
        self
    }

    /// Asks `decide` about every request for a file before it is served. By default every request is allowed.
    ///
    /// A decision that takes longer than the request timeout is a refusal with status 503.
    ///
    /// ```
    /// use dtcore::{Authorization, AuthorizeRequest, ServerOptions};
    /// let options = ServerOptions::new("/srv/files").authorize(|request: AuthorizeRequest| async move {
    ///     if request.path.starts_with("private") && !request.peer.ip().is_loopback() {
    ///         Authorization::Forbidden
    ///     } else {
    ///         Authorization::Allowed
    ///     }
    /// });
    /// ```
    pub fn authorize<F, D>(mut self, decide: F) -> Self
    where
        F: Fn(AuthorizeRequest) -> D + Send + Sync + 'static,
        D: Future<Output = Authorization> + Send + 'static,
    {
        self.authorizer = Some(Authorizer::new(decide));
        self
    }

    /// Takes uploads; by default none is taken. There is no authentication: anybody who reaches the port can write, unless
    /// [`authorize`](Self::authorize) forbids it.
    pub fn uploads(mut self, policy: UploadPolicy) -> Self {
        self.uploads = Some(policy);
        self
    }

    /// Whether directories may be listed, which is the default.
    pub fn listing(mut self, allowed: bool) -> Self {
        self.listing = allowed;
        self
    }

    /// The ports for transfers of protocol 1; by default the system chooses them.
    ///
    /// Each transfer of protocol 1 takes one; when all are taken, requests are refused with status 503.
    pub fn transfer_ports(mut self, ports: PortRange) -> Self {
        self.transfer_ports = Some(ports);
        self
    }

    /// How many HTTP connections may be open at once, half of them from one address. Default 512.
    pub fn max_connections(mut self, connections: NonZeroUsize) -> Self {
        self.max_connections = connections;
        self
    }

    /// How many transfers there may be at once. Default 1024.
    pub fn max_transfers(mut self, transfers: NonZeroUsize) -> Self {
        self.max_transfers = transfers;
        self
    }

    /// How many transfers one address may have at once, at most half of all. Default 256.
    pub fn max_transfers_per_address(mut self, transfers: NonZeroUsize) -> Self {
        self.max_transfers_per_address = transfers;
        self
    }

    /// How many streams there may be at once, over all transfers. Default 4096.
    ///
    /// As many connections may carry them, and half of these, or 271 if that is more, may be of one address.
    /// More are refused until there is room; in protocol 1 they wait for their turn.
    pub fn max_streams(mut self, streams: NonZeroUsize) -> Self {
        self.max_streams = streams;
        self
    }

    /// How long a client may take for the head of its request, then for its body, and for the id or hello of a stream.
    /// Default 10 s.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = bounded(timeout);
        self
    }

    /// How long a transfer of protocol 1 is kept while none of its streams is open. Default 30 s.
    pub fn transfer_expiry(mut self, expiry: Duration) -> Self {
        self.transfer_expiry = bounded(expiry);
        self
    }

    /// How long a session of protocol 2 is kept while none of its streams is open. Default 60 s.
    pub fn session_expiry(mut self, expiry: Duration) -> Self {
        self.session_expiry = bounded(expiry);
        self
    }

    /// How long a stream of protocol 2 is kept on which nothing is requested. Default 300 s.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = bounded(timeout);
        self
    }

    /// How long a stream may accept no byte. Default 60 s.
    pub fn stall_timeout(mut self, timeout: Duration) -> Self {
        self.stall_timeout = bounded(timeout);
        self
    }

    /// How long running streams may continue after shutdown has begun. Default 1 s.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = bounded(timeout);
        self
    }

    /// Limits the rate at which all transfers of protocol 2 together are sent, in bytes a second.
    pub fn rate_limit(mut self, bytes_per_second: NonZeroU64) -> Self {
        self.rate_limit = Some(bytes_per_second);
        self
    }

    /// The folder that is served.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The address and port to listen on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// A range of ports, written `A-B`, both included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// The ports from `first` to `last`.
    ///
    /// # Errors
    /// [`InvalidPortRange`] if `first` is 0 or larger than `last`.
    pub fn new(first: u16, last: u16) -> Result<Self, InvalidPortRange> {
        if first == 0 || first > last {
            return Err(InvalidPortRange);
        }
        Ok(Self { first, last })
    }

    /// The lowest port.
    pub fn first(self) -> u16 {
        self.first
    }

    /// The highest port, included.
    pub fn last(self) -> u16 {
        self.last
    }

    /// Every port once, from the `n`th to the last, then from the first to the one before the `n`th.
    pub(crate) fn round_from(self, n: u64) -> impl Iterator<Item = u16> {
        let len = u64::from(self.last - self.first) + 1;
        let middle = self.first.saturating_add(u16::try_from(n % len).unwrap_or(0));
        let before: RangeInclusive<u16> = self.first..=self.last;
        (middle..=self.last).chain(before.take_while(move |port| *port < middle))
    }
}

impl FromStr for PortRange {
    type Err = InvalidPortRange;

    fn from_str(text: &str) -> Result<Self, InvalidPortRange> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let port = |text: &str| text.trim().parse().map_err(|_| InvalidPortRange);
        Self::new(port(first)?, port(last)?)
    }
}

/// Text or numbers that are not a range of ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a range of ports is written A-B, with 1 <= A <= B <= 65535")]
#[non_exhaustive]
pub struct InvalidPortRange;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_has_two_ports_in_order() {
        assert_eq!("9100-9199".parse(), PortRange::new(9100, 9199));
        assert_eq!("9100".parse(), PortRange::new(9100, 9100));
        let range = PortRange::new(9100, 9199).unwrap();
        assert_eq!((range.first(), range.last()), (9100, 9199));
        for text in ["", "-", "9-8", "0-5", "1-65536", "a-b", "1-2-3"] {
            assert_eq!(text.parse::<PortRange>(), Err(InvalidPortRange), "{text}");
        }
    }

    #[test]
    fn round_contains_every_port_once() {
        let ports = |text: &str, n| text.parse::<PortRange>().unwrap().round_from(n).collect::<Vec<_>>();
        assert_eq!(ports("7-9", 0), [7, 8, 9]);
        assert_eq!(ports("7-9", 2), [9, 7, 8]);
        assert_eq!(ports("7-9", 4), [8, 9, 7]);
        assert_eq!(ports("7", 5), [7]);
        assert_eq!(ports("1-65535", 65_534)[..2], [65_535, 1]);
    }
}
