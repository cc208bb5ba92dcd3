//! Listening sockets.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// How many connections may wait to be accepted: more than the 255 streams of one client.
const BACKLOG: i32 = 1024;

/// Who chooses the port number of a listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PortUse {
    /// The user: the port must be available at once after a restart.
    Chosen,
    /// The system: the port must not be one that an old connection still uses.
    Ephemeral,
}

/// Listens on `address`; the unspecified IPv6 address accepts IPv4 too, or only IPv4 on systems without IPv6.
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
    // After a restart, connections of this process that are still closing must not block the same port.
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
    async fn chosen_port_in_use_is_an_error() {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let first = listen(any, PortUse::Ephemeral).unwrap();
        let error = listen(first.local_addr().unwrap(), PortUse::Chosen).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
