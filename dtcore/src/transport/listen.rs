//! Listening sockets.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// How many connections may wait to be accepted: more than the 255 streams that one client opens at once.
const BACKLOG: i32 = 1024;

/// Where the port number of a listener comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PortUse {
    /// A person chose it: it must be free again at once after a restart.
    Chosen,
    /// The system chooses it: it must not be one that an old connection still uses.
    Ephemeral,
}

/// Listens on `address`; the unspecified IPv6 address takes IPv4 too, or only that where there is no IPv6.
pub(crate) fn listen(address: SocketAddr, port_use: PortUse) -> io::Result<TcpListener> {
    match bound(address, port_use) {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && lacks_ipv6(&error) => {
            bound(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())), port_use)
        }
        result => result,
    }
}

fn bound(address: SocketAddr, port_use: PortUse) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    if port_use == PortUse::Chosen {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    // Whoever is started anew and chooses this very port shall not find it held by connections that are only session_end.
    socket.set_reuse_address(true)?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn lacks_ipv6(error: &io::Error) -> bool {
    let errno = rustix::io::Errno::from_io_error(error);
    matches!(errno, Some(rustix::io::Errno::AFNOSUPPORT | rustix::io::Errno::ADDRNOTAVAIL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_chosen_port_in_use_is_an_error() {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let first = listen(any, PortUse::Ephemeral).unwrap();
        let error = listen(first.local_addr().unwrap(), PortUse::Chosen).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
