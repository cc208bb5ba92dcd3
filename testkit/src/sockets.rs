//! Raw TCP on the loopback interface, that distinguishes how connections end.

use std::fs;
use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::wait::{PATIENCE, until_true};

/// How a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// With FIN: the peer said all it had to say.
    Closed,
    /// With RST.
    Reset,
}

/// The bytes of a connection, and how it ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Received {
    /// All bytes, in order.
    pub bytes: Vec<u8>,
    /// The end that followed them.
    pub end: End,
}

/// Connects with the usual patience for every read and write.
///
/// # Errors
/// Whatever connecting gives, above all `ConnectionRefused`.
pub fn try_connect(addr: SocketAddr) -> io::Result<TcpStream> {
    prepare(TcpStream::connect_timeout(&addr, PATIENCE)?)
}

/// Connects, which must work.
pub fn connect(addr: SocketAddr) -> TcpStream {
    try_connect(addr).unwrap_or_else(|error| panic!("connecting to {addr}: {error}"))
}

/// Connects from another address of this machine.
///
/// # Errors
/// Whatever connecting gives.
pub fn connect_from(source: Ipv4Addr, addr: SocketAddr) -> io::Result<TcpStream> {
    let socket = tcp_socket(SocketFlags::CLOEXEC)?;
    rustix::net::bind(&socket, &SocketAddr::from((source, 0)))?;
    rustix::net::connect(&socket, &addr)?;
    prepare(TcpStream::from(socket))
}

fn prepare(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn tcp_socket(flags: SocketFlags) -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?)
}

/// Waits for the first two bytes and leaves them unread; `None` if the connection ends before.
pub fn peek(stream: &TcpStream) -> Option<[u8; 2]> {
    let begin = Instant::now();
    let mut bytes = [0; 2];
    while begin.elapsed() < PATIENCE {
        match stream.peek(&mut bytes) {
            Ok(0) | Err(_) => return None,
            Ok(1) if has_ended(stream) => return None,
            Ok(1) => thread::sleep(Duration::from_millis(1)),
            Ok(_) => return Some(bytes),
        }
    }
    None
}

/// Whether a read or write only has to be repeated.
pub fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// Whether the peer has closed its side, whatever is still to be read.
fn has_ended(stream: &TcpStream) -> bool {
    let mut fds = [PollFd::new(stream, PollFlags::RDHUP)];
    poll(&mut fds, Some(&Timespec::default())).is_ok_and(|n| n > 0)
}

/// Whether connections to `addr` are refused.
pub fn is_refused(addr: SocketAddr) -> bool {
    TcpStream::connect_timeout(&addr, PATIENCE)
        .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// Reads until the connection ends; a silence of [`PATIENCE`] fails the test.
pub fn read_to_end(mut stream: &TcpStream) -> Received {
    let mut bytes = Vec::new();
    let end = read_into(&mut stream, |chunk| bytes.extend_from_slice(chunk));
    Received { bytes, end }
}

/// Reads until the connection ends and hands every piece on.
pub fn read_into(stream: &mut impl Read, mut take: impl FnMut(&[u8])) -> End {
    let begin = Instant::now();
    let mut buffer = vec![0; 256 << 10];
    loop {
        assert!(begin.elapsed() < 10 * PATIENCE, "the peer never ends the connection");
        match stream.read(&mut buffer) {
            Ok(0) => return End::Closed,
            Ok(n) => take(&buffer[..n]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return End::Reset,
            Err(error) => panic!("the peer neither sends nor ends the connection: {error}"),
        }
    }
}

/// Ends a connection with RST, at once and without what is still queued.
pub fn reset(stream: TcpStream) {
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).expect("SO_LINGER is set");
    drop(stream);
}

/// Ends a connection with RST after the peer's system has acknowledged every byte.
pub fn reset_after_data(stream: TcpStream) {
    let ends = [stream.local_addr(), stream.peer_addr()].map(|addr| addr.map(|addr| addr.port()));
    let [Ok(local), Ok(remote)] = ends else { return };
    // The fourth field of /proc/net/tcp: bytes not yet acknowledged. A connection that is gone has none.
    let unsent = || {
        let table = fs::read_to_string("/proc/net/tcp").expect("the table of connections is read");
        let ends = (format!(":{local:04X}"), format!(":{remote:04X}"));
        table.lines().any(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields.get(1..5).is_some_and(|fields| {
                fields[0].ends_with(&ends.0)
                    && fields[1].ends_with(&ends.1)
                    && !fields[3].starts_with("00000000:")
            })
        })
    };
    until_true("the peer acknowledges the data", || !unsent());
    reset(stream);
}

/// A bound address that refuses connections until it listens.
#[derive(Debug)]
pub struct LateListener {
    socket: OwnedFd,
    addr: SocketAddr,
}

impl LateListener {
    /// Takes a free port of 127.0.0.1.
    pub fn bind() -> Self {
        let socket = tcp_socket(SocketFlags::CLOEXEC).expect("a socket is made");
        rustix::net::bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a port is free");
        let addr = rustix::net::getsockname(&socket).expect("the address is known");
        let addr = addr.try_into().expect("it is an address of IPv4");
        Self { socket, addr }
    }

    /// The address it will listen at.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Begins to listen.
    pub fn listen(self) -> TcpListener {
        rustix::net::listen(&self.socket, 512).expect("it listens");
        TcpListener::from(self.socket)
    }
}

/// Waits up to `limit` for a connection.
pub fn accept_within(listener: &TcpListener, limit: Duration) -> Option<TcpStream> {
    let limit = Timespec::try_from(limit).expect("a short time");
    let mut fds = [PollFd::new(listener, PollFlags::IN)];
    let ready = poll(&mut fds, Some(&limit)).is_ok_and(|n| n > 0);
    let (stream, _) = ready.then(|| listener.accept().ok()).flatten()?;
    prepare(stream).ok()
}

/// How often [`accept_all`] checks whether it is to stop.
const TICK: Duration = Duration::from_millis(5);

/// Serves each connection in a thread of its own, until `is_stopped`.
pub fn accept_all<S: Send + Sync + 'static>(
    listener: TcpListener,
    shared: &Arc<S>,
    is_stopped: fn(&S) -> bool,
    serve: fn(Arc<S>, TcpStream),
) -> JoinHandle<()> {
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        while !is_stopped(&shared) {
            if let Some(stream) = accept_within(&listener, TICK) {
                let shared = Arc::clone(&shared);
                thread::spawn(move || serve(shared, stream));
            }
        }
    })
}

/// An address of 127.0.0.1.
pub fn local(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// An address that neither accepts nor refuses: the queue of its listener is full.
#[derive(Debug)]
pub struct FullListener {
    addr: SocketAddr,
    _listener: OwnedFd,
    _queued: Vec<TcpStream>,
}

impl FullListener {
    /// Fills the queue of a listener that never accepts.
    pub fn bind() -> Self {
        let late = LateListener::bind();
        let addr = late.addr;
        rustix::net::listen(&late.socket, 0).expect("it listens");
        let mut queued = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&addr, Duration::from_millis(300)) {
            queued.push(stream);
            assert!(queued.len() < 100, "the queue is never full");
        }
        Self { addr, _listener: late.socket, _queued: queued }
    }

    /// The address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}
