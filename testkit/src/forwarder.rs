//! A TCP forwarder, as the port mapping of a container: what arrives at one address goes on to another.
//!
//! It knows nothing of what it forwards. Each connection's answer can be kept to a rate, and one connection to a hundredth
//! of it.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::sockets::accept_all;

/// How many bytes are forwarded at once.
const CHUNK: usize = 16 << 10;

/// What a limited forwarder accepts of the sender in advance: little, as a slow path with a short queue.
const UPSTREAM_BUFFER: usize = 128 << 10;

/// How much lateness of a thread that wakes up late is made up for.
const LATENESS: Duration = Duration::from_millis(20);

/// No connection is slow.
const NONE: u64 = u64::MAX;

/// A running forwarder; accepts no more connections when dropped.
#[derive(Debug)]
pub struct Forwarder {
    /// Where it listens.
    pub addr: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    bytes_per_second: Option<u64>,
    n_connections: AtomicU64,
    slow: AtomicU64,
    forwarded: AtomicU64,
    stop: AtomicBool,
}

impl Forwarder {
    /// Forwards from a free port of 127.0.0.1.
    pub fn start(target: SocketAddr) -> Self {
        Self::listen(SocketAddr::from(([127, 0, 0, 1], 0)), target, None)
    }

    /// Forwards from 127.0.0.2 and the port of `target`, so that a client to which the server names a port reaches a
    /// forwarder again; each connection's answer at this rate if there is one.
    pub fn with_the_same_port(target: SocketAddr, bytes_per_second: Option<u64>) -> Self {
        Self::listen(SocketAddr::from(([127, 0, 0, 2], target.port())), target, bytes_per_second)
    }

    fn listen(listen: SocketAddr, target: SocketAddr, bytes_per_second: Option<u64>) -> Self {
        let listener = TcpListener::bind(listen)
            .unwrap_or_else(|error| panic!("the forwarder cannot listen on {listen}: {error}"));
        let shared = Arc::new(Shared {
            target,
            bytes_per_second,
            n_connections: AtomicU64::new(0),
            slow: AtomicU64::new(NONE),
            forwarded: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let addr = listener.local_addr().expect("the address is known");
        accept_all(listener, &shared, |shared| shared.stop.load(Ordering::SeqCst), Shared::serve);
        Self { addr, shared }
    }

    /// Counts connections from 0 again, and gives the one of this number a hundredth of the rate.
    pub fn begin(&self, slow: Option<u64>) {
        self.shared.n_connections.store(0, Ordering::SeqCst);
        self.shared.slow.store(slow.unwrap_or(NONE), Ordering::SeqCst);
        self.shared.forwarded.store(0, Ordering::SeqCst);
    }

    /// The number of connections since [`begin`](Self::begin).
    pub fn n_connections(&self) -> u64 {
        self.shared.n_connections.load(Ordering::SeqCst)
    }

    /// The bytes of the server that were forwarded to clients since then, whether they have read them or not.
    pub fn forwarded(&self) -> u64 {
        self.shared.forwarded.load(Ordering::SeqCst)
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
    }
}

impl Shared {
    fn serve(self: Arc<Self>, client: TcpStream) {
        let number = self.n_connections.fetch_add(1, Ordering::SeqCst);
        let slowness = if number == self.slow.load(Ordering::SeqCst) { 100 } else { 1 };
        let rate = self.bytes_per_second.map(|rate| (rate / slowness).max(1));
        // A fault on one side ends the other, and the client sees a lost connection.
        let Ok(server) = self.connect() else { return };
        let sides = [client, server];
        let [client, server] = &sides;
        thread::scope(|scope| {
            scope.spawn(|| {
                let _ = copy(client, server, None, &AtomicU64::new(0));
                let _ = server.shutdown(Shutdown::Write);
            });
            if copy(server, client, rate, &self.forwarded).is_ok() {
                let _ = client.shutdown(Shutdown::Write);
            } else {
                for side in &sides {
                    let _ = side.shutdown(Shutdown::Both);
                }
            }
        });
    }

    fn connect(&self) -> std::io::Result<TcpStream> {
        let socket = Socket::new(Domain::for_address(self.target), Type::STREAM, None)?;
        if self.bytes_per_second.is_some() {
            socket.set_recv_buffer_size(UPSTREAM_BUFFER)?;
        }
        socket.connect(&self.target.into())?;
        Ok(socket.into())
    }
}

/// Copies to the end of `from`, on average not faster than the rate.
fn copy(
    mut from: &TcpStream,
    mut to: &TcpStream,
    bytes_per_second: Option<u64>,
    n_bytes: &AtomicU64,
) -> std::io::Result<()> {
    // A client that pauses is no fault; the other side ends the connection.
    from.set_read_timeout(None)?;
    let mut buffer = vec![0; if bytes_per_second.is_some() { CHUNK } else { 16 * CHUNK }];
    let mut due = Instant::now();
    loop {
        let n = from.read(&mut buffer)?;
        if n == 0 {
            return Ok(());
        }
        thread::sleep(due.saturating_duration_since(Instant::now()));
        to.write_all(&buffer[..n])?;
        let n = u64::try_from(n).expect("it fits");
        n_bytes.fetch_add(n, Ordering::SeqCst);
        if let Some(rate) = bytes_per_second {
            // A longer pause is not made up for later.
            let now = Instant::now();
            due = due.max(now.checked_sub(LATENESS).unwrap_or(now))
                + Duration::from_nanos(n * 1_000_000_000 / rate);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_connection_is_slow_and_no_byte_is_lost() {
        let server = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let target = server.local_addr().expect("the address is known");
        thread::spawn(move || {
            for stream in server.incoming().flatten() {
                (&stream).write_all(&vec![7; 100_000]).expect("it is sent");
            }
        });
        let forwarder = Forwarder::with_the_same_port(target, Some(10_000_000));
        forwarder.begin(Some(1));
        let fetch = || {
            let begun = Instant::now();
            let mut bytes = Vec::new();
            let mut stream = TcpStream::connect(forwarder.addr).expect("it listens");
            stream.read_to_end(&mut bytes).expect("it is read");
            assert_eq!(bytes, vec![7; 100_000]);
            begun.elapsed()
        };
        let (first, second, third) = (fetch(), fetch(), fetch());
        assert_eq!((forwarder.n_connections(), forwarder.forwarded()), (3, 300_000));
        assert!(second > Duration::from_millis(500), "{second:?}");
        assert!(second > first * 4 && second > third * 4, "{first:?} {second:?} {third:?}");
    }
}
