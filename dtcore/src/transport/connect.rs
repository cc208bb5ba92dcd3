//! Establishing connections, each within a deadline.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::io::Errno;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, sleep, timeout_at};

use crate::failure::{Awaited, Failure};

/// Connects to the server, trying its addresses in the resolver's order.
///
/// # Errors
/// [`Failure::Unreachable`] with the last address' error, [`Failure::TimedOut`] after `limit`.
pub(crate) async fn connect(
    host: &str,
    port: u16,
    server: &str,
    limit: Duration,
) -> Result<TcpStream, Failure> {
    let deadline = Instant::now() + limit;
    let timed_out =
        || Failure::TimedOut { server: server.to_string(), awaited: Awaited::Connection, waited: limit };
    let unreachable = |source| failed(server.to_string(), source);

    let resolved = timeout_at(deadline, lookup_host((host, port))).await;
    let addresses: Vec<SocketAddr> = resolved.map_err(|_| timed_out())?.map_err(unreachable)?.collect();
    let mut last = None;
    for (tried, address) in addresses.iter().enumerate() {
        // An unreachable address must not use up the time of the others: each gets an equal share of the rest.
        let left = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        let share = Instant::now() + deadline.saturating_duration_since(Instant::now()) / left;
        last = Some(match timeout_at(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return prepared(stream).map_err(unreachable),
            Ok(Err(error)) => unreachable(error),
            Err(_) => timed_out(),
        });
    }
    Err(last.unwrap_or_else(|| unreachable(io::Error::other("the name has no address"))))
}

/// How long a refused data connection is retried: the original server starts to listen a moment after it has sent its
/// port.
const REFUSED_FOR: Duration = Duration::from_secs(3);

/// The longest pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_millis(50);

/// Connects to a data port, and retries for a moment if the connection is refused.
///
/// # Errors
/// As [`connect`].
pub(crate) async fn connect_retrying(address: SocketAddr, limit: Duration) -> Result<TcpStream, Failure> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        let tried = timeout_at(start + limit, TcpStream::connect(address)).await;
        match tried.map_err(|_| Failure::TimedOut {
            server: address.to_string(),
            awaited: Awaited::Connection,
            waited: limit,
        })? {
            Ok(stream) => {
                return prepared(stream).map_err(|source| failed(address.to_string(), source));
            }
            Err(error)
                if error.kind() == io::ErrorKind::ConnectionRefused
                    && start.elapsed() < REFUSED_FOR.min(limit) =>
            {
                sleep(pause).await;
                pause = (pause * 2).min(MAX_PAUSE);
            }
            Err(source) => return Err(failed(address.to_string(), source)),
        }
    }
}

/// The error of a failed connection attempt, which is the server's unless this system is out of sockets.
fn failed(server: String, source: io::Error) -> Failure {
    match Errno::from_io_error(&source) {
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
            Failure::System { action: "open a connection", source }
        }
        _ => Failure::Unreachable { server, source },
    }
}

/// Sets the options of every connection: requests are sent without delay, and a vanished peer is detected.
pub(crate) fn prepared(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(15))
        .with_interval(Duration::from_secs(15));
    socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    Ok(stream)
}
