//! A running server as its owner sees it, and the sockets that it can be given.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::ServerContext;
use super::stats::ServerStats;

/// A handle to a [`Server`](super::Server), valid before, while and after it runs.
#[derive(Clone, Debug)]
pub struct ServerHandle {
    local_addr: SocketAddr,
    stats: ServerStats,
    draining: CancellationToken,
}

impl ServerHandle {
    pub(super) fn new(context: &ServerContext) -> Self {
        let (local_addr, stats) = (context.local_addr, context.stats.clone());
        Self { local_addr, stats, draining: context.tasks().draining.clone() }
    }

    /// Begins the shutdown, as described for [`Server::run`](super::Server::run), which returns when it is done.
    pub fn shutdown(&self) {
        self.draining.cancel();
    }

    /// The address and port that the server listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The server's counters.
    pub fn stats(&self) -> ServerStats {
        self.stats.clone()
    }
}

/// A socket that listens already.
#[derive(Debug)]
pub struct ListeningSocket(Kind);

#[derive(Debug)]
enum Kind {
    Std(std::net::TcpListener),
    Tokio(TcpListener),
}

impl From<std::net::TcpListener> for ListeningSocket {
    fn from(listener: std::net::TcpListener) -> Self {
        Self(Kind::Std(listener))
    }
}

impl From<TcpListener> for ListeningSocket {
    fn from(listener: TcpListener) -> Self {
        Self(Kind::Tokio(listener))
    }
}

impl ListeningSocket {
    pub(super) fn into_tokio(self) -> io::Result<TcpListener> {
        match self.0 {
            Kind::Tokio(listener) => Ok(listener),
            Kind::Std(listener) => {
                listener.set_nonblocking(true)?;
                TcpListener::from_std(listener)
            }
        }
    }
}
