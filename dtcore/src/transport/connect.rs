//! Establishing connections, each within a deadline.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, sleep, timeout_at};

use crate::failure::{Awaited, Failure, is_shortage};

/// How long an address is tried alone before the next one is tried too, as in RFC 8305.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// A connection to one of a server's addresses.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) stream: TcpStream,
    pub(crate) peer: SocketAddr,
    /// Whether the server has other addresses that are not to be avoided.
    pub(crate) has_others: bool,
}

/// Connects to the server at one of its addresses that is not in `avoid`: they are tried in the resolver's order, with the families in
/// turn, and the first that connects counts.
///
/// # Errors
/// [`Failure::Unresolved`]; [`Failure::Unreachable`] with the last address' error; [`Failure::TimedOut`] after `limit`.
///
/// # Cancel safety
/// Connections that are being made are closed.
pub(crate) async fn connect(
    host: &str,
    port: u16,
    server: &str,
    limit: Duration,
    avoid: &[SocketAddr],
) -> Result<Connected, Failure> {
    let deadline = Instant::now() + limit;
    let timed_out =
        |_| Failure::TimedOut { server: server.to_string(), awaited: Awaited::Connection, waited: limit };
    let resolved = timeout_at(deadline, lookup_host((host, port))).await.map_err(timed_out)?;
    let resolved = resolved.map_err(|source| {
        let failure = failed(server.to_string(), source);
        if let Failure::Unreachable { server, source } = failure {
            Failure::Unresolved { server, source }
        } else {
            failure
        }
    })?;
    let addresses = in_turn(resolved.filter(|address| !avoid.contains(address)).collect());
    let connected = timeout_at(deadline, first_of(addresses.clone())).await.map_err(timed_out)?;
    let connected = connected.and_then(prepared).and_then(|stream| {
        let peer = stream.peer_addr()?;
        let has_others = addresses.iter().any(|address| *address != peer);
        Ok(Connected { stream, peer, has_others })
    });
    connected.map_err(|source| failed(server.to_string(), source))
}

/// The addresses with the families in turn, beginning with that of the first.
fn in_turn(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let Some(is_first_ipv6) = addresses.first().map(SocketAddr::is_ipv6) else { return addresses };
    let (one, other): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == is_first_ipv6);
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    let mut all = Vec::new();
    loop {
        let next = [one.next(), other.next()];
        if next == [None, None] {
            return all;
        }
        all.extend(next.into_iter().flatten());
    }
}

/// The first connection that succeeds, or the last error.
async fn first_of(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut untried = addresses.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut last = io::Error::other("the name has no other address");
    loop {
        attempts.extend(untried.next().map(TcpStream::connect));
        let is_last = untried.len() == 0;
        tokio::select! {
            biased;
            connected = attempts.next() => match connected {
                Some(Ok(stream)) => return Ok(stream),
                Some(Err(error)) => last = error,
                None => return Err(last),
            },
            () = sleep(ATTEMPT_DELAY), if !is_last => {}
        }
    }
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
pub(crate) fn failed(server: String, source: io::Error) -> Failure {
    if is_shortage(&source) {
        Failure::System { action: "open a connection", source }
    } else {
        Failure::Unreachable { server, source }
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn families_are_tried_in_turn() {
        let in_turn_of = |texts: &[&str]| in_turn(texts.iter().map(|text| address(text)).collect());
        let mixed = in_turn_of(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "1.1.1.2:1"]);
        assert_eq!(mixed, ["[::1]:1", "1.1.1.1:1", "[::2]:1", "1.1.1.2:1", "[::3]:1"].map(address));
        let first = in_turn_of(&["1.1.1.1:1", "[::1]:1", "[::2]:1"]);
        assert_eq!(first, ["1.1.1.1:1", "[::1]:1", "[::2]:1"].map(address));
        assert_eq!(in_turn(Vec::new()), []);
    }

    /// A listener whose queue is full: it neither accepts nor refuses.
    async fn unanswering() -> (std::net::TcpListener, Vec<TcpStream>) {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&address("127.0.0.1:0").into()).unwrap();
        socket.listen(0).unwrap();
        let listener = std::net::TcpListener::from(socket);
        let mut queued = Vec::new();
        while let Ok(Ok(stream)) = tokio::time::timeout(
            Duration::from_millis(200),
            TcpStream::connect(listener.local_addr().unwrap()),
        )
        .await
        {
            queued.push(stream);
        }
        (listener, queued)
    }

    #[tokio::test]
    async fn address_that_does_not_answer_delays_the_next_by_a_moment() {
        let (silent, _queued) = unanswering().await;
        let good = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addresses = vec![silent.local_addr().unwrap(), good.local_addr().unwrap()];
        let begun = Instant::now();
        let stream = first_of(addresses).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good.local_addr().unwrap());
        assert!((ATTEMPT_DELAY..Duration::from_secs(5)).contains(&begun.elapsed()));
    }

    #[tokio::test]
    async fn refused_address_delays_nothing_and_the_last_error_counts() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let good = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let begun = Instant::now();
        assert!(first_of(vec![closed, closed, good.local_addr().unwrap()]).await.is_ok());
        assert!(begun.elapsed() < ATTEMPT_DELAY);
        let error = first_of(vec![closed]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(first_of(Vec::new()).await.unwrap_err().to_string().contains("no other address"));
    }
}
