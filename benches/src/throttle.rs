//! A proxy that gives every connection the same rate, but for one, which gets a hundredth.
//!
//! It stands at another loopback address with the same port as the server, so a client that is told a port by the
//! server goes through the proxy again.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::{Failure, float};

/// An address of the loopback network with a port that is free now.
///
/// # Errors
/// If there is none.
pub fn free_port() -> Result<SocketAddr, Failure> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// What the proxy hands on at once.
const CHUNK: usize = 16 << 10;

/// What the proxy lets the sender have on the way: little, as a slow path with a short queue.
const UPSTREAM_BUFFER: usize = 128 << 10;

/// What is made up for when a thread wakes too late.
const LATENESS: Duration = Duration::from_millis(20);

/// No connection is slow.
const NONE: u64 = u64::MAX;

/// The address where proxies stand; the servers are at 127.0.0.1, with the same ports.
const PROXY: [u8; 4] = [127, 0, 0, 2];

/// A rate that slows nothing.
pub const UNLIMITED: u64 = 1 << 40;

/// A running proxy; its listener lives as long as the process.
#[derive(Clone, Debug)]
pub struct Throttle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    bytes_per_second: f64,
    n_connections: AtomicU64,
    slow: AtomicU64,
    handed_on: AtomicU64,
}

impl Throttle {
    /// Stands before a server of the loopback address; returns where, too.
    ///
    /// # Errors
    /// If it cannot listen there.
    pub fn before(server: SocketAddr, bytes_per_second: u64) -> Result<(Self, SocketAddr), Failure> {
        let listen = SocketAddr::from((PROXY, server.port()));
        Ok((Self::start(listen, server, bytes_per_second)?, listen))
    }

    /// Listens at `listen` and hands everything on to `target`, each connection's answer at this rate.
    ///
    /// # Errors
    /// If it cannot listen there.
    pub fn start(listen: SocketAddr, target: SocketAddr, bytes_per_second: u64) -> Result<Self, Failure> {
        let listener = TcpListener::bind(listen)
            .map_err(|error| format!("the proxy cannot listen on {listen}: {error}"))?;
        let shared = Arc::new(Shared {
            target,
            bytes_per_second: float(bytes_per_second),
            n_connections: AtomicU64::new(0),
            slow: AtomicU64::new(NONE),
            handed_on: AtomicU64::new(0),
        });
        let throttle = Self { shared: Arc::clone(&shared) };
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                thread::spawn(move || shared.serve(&client));
            }
        });
        Ok(throttle)
    }

    /// From now on connections are counted from 0, and the one of this number gets a hundredth of the rate.
    pub fn begin(&self, slow: Option<u64>) {
        self.shared.n_connections.store(0, Ordering::SeqCst);
        self.shared.slow.store(slow.unwrap_or(NONE), Ordering::SeqCst);
        self.shared.handed_on.store(0, Ordering::SeqCst);
    }

    /// The bytes of the server that were handed on to clients since then, whether they have read them or not.
    pub fn handed_on(&self) -> u64 {
        self.shared.handed_on.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn serve(&self, client: &TcpStream) {
        let number = self.n_connections.fetch_add(1, Ordering::SeqCst);
        let slowness = if number == self.slow.load(Ordering::SeqCst) { 100.0 } else { 1.0 };
        // Whatever breaks on one side ends the other; the client sees it as what it is, a lost connection.
        let Ok(server) = connect(self.target) else { return };
        thread::scope(|scope| {
            scope.spawn(|| {
                let _ = copy(client, &server, f64::INFINITY, &AtomicU64::new(0));
                let _ = server.shutdown(Shutdown::Write);
            });
            if copy(&server, client, self.bytes_per_second / slowness, &self.handed_on).is_ok() {
                let _ = client.shutdown(Shutdown::Write);
            } else {
                let _ = client.shutdown(Shutdown::Both);
                let _ = server.shutdown(Shutdown::Both);
            }
        });
    }
}

fn connect(target: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
    socket.set_recv_buffer_size(UPSTREAM_BUFFER)?;
    socket.connect(&target.into())?;
    Ok(socket.into())
}

/// Copies to the end of `from`, in the mean not faster than the rate.
fn copy(
    mut from: &TcpStream,
    mut to: &TcpStream,
    bytes_per_second: f64,
    n_bytes: &AtomicU64,
) -> std::io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut due = Instant::now();
    loop {
        let n = from.read(&mut buffer)?;
        let Some(bytes @ [_, ..]) = buffer.get(..n) else { return Ok(()) };
        thread::sleep(due.saturating_duration_since(Instant::now()));
        to.write_all(bytes)?;
        let n = u64::try_from(n).unwrap_or(0);
        n_bytes.fetch_add(n, Ordering::SeqCst);
        let cost = float(n) / bytes_per_second;
        // A longer pause is not made up for later.
        let now = Instant::now();
        due = due.max(now.checked_sub(LATENESS).unwrap_or(now)) + Duration::from_secs_f64(cost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_connection_is_slow_and_no_byte_is_lost() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = server.local_addr().unwrap();
        thread::spawn(move || {
            for stream in server.incoming().flatten() {
                (&stream).write_all(&vec![7; 100_000]).unwrap();
            }
        });
        let listen = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let throttle = Throttle::start(listen, target, 10_000_000).unwrap();
        throttle.begin(Some(1));
        let fetch = || {
            let begun = Instant::now();
            let mut bytes = Vec::new();
            TcpStream::connect(listen).unwrap().read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes, vec![7; 100_000]);
            begun.elapsed()
        };
        let (first, second, third) = (fetch(), fetch(), fetch());
        assert_eq!(throttle.handed_on(), 300_000);
        assert!(second > Duration::from_millis(500), "{second:?}");
        assert!(second > first * 4 && second > third * 4, "{first:?} {second:?} {third:?}");
    }
}
