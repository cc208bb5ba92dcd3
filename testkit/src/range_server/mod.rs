//! A server of protocol 2 with faults on demand, written from the protocol's description over raw sockets.

mod lie;
mod stream;

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use crate::frame::{self, HELLO, MARK};
use crate::http::{is_upgrade, read_request};
use crate::session::UPGRADE;
use crate::sockets::{accept_all, peek};

pub use lie::Lie;
use stream::Stream;

const TICK: Duration = Duration::from_millis(5);
const SECRET: [u8; 16] = *b"0123456789abcdef";
/// The number of the first session.
const FIRST_SESSION: u64 = 0xa7;

/// A running server that gives the same bytes for every name; ended when dropped.
#[derive(Debug)]
pub struct RangeServer {
    /// Where it listens.
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    content: Vec<u8>,
    block: u64,
    lie: Lie,
    stop: AtomicBool,
    has_lied: AtomicBool,
    n_sessions: AtomicU64,
    streams: Mutex<Vec<u8>>,
    sent: Mutex<Vec<Range<u64>>>,
    ended: Mutex<BTreeSet<u64>>,
}

impl RangeServer {
    /// Serves `content` in blocks of `block` bytes.
    pub fn start(content: Vec<u8>, block: u64, lie: Lie) -> Self {
        let shared = Arc::new(Shared {
            content,
            block,
            lie,
            stop: AtomicBool::new(false),
            has_lied: AtomicBool::new(false),
            n_sessions: AtomicU64::new(0),
            streams: Mutex::default(),
            sent: Mutex::default(),
            ended: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let addr = listener.local_addr().expect("the address is known");
        let thread = accept_all(listener, &shared, Shared::is_stopped, Shared::serve);
        Self { addr, shared, thread: Some(thread) }
    }

    /// The ids of all streams, in the order in which they were opened.
    pub fn streams(&self) -> Vec<u8> {
        self.shared.streams.lock().expect("no holder panics").clone()
    }

    /// The bytes of all runs that were requested or pushed, in this order.
    pub fn sent(&self) -> Vec<Range<u64>> {
        self.shared.sent.lock().expect("no holder panics").clone()
    }

    /// How many sessions were ended by `END`.
    pub fn ended(&self) -> usize {
        self.shared.ended.lock().expect("no holder panics").len()
    }

    /// How many sessions were offered.
    pub fn sessions(&self) -> u64 {
        self.shared.n_sessions.load(Ordering::SeqCst)
    }
}

impl Drop for RangeServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // A thread that failed has failed the test by what it did not send.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn size(&self) -> u64 {
        u64::try_from(self.content.len()).expect("it fits")
    }

    /// Tells connections apart by their first two bytes.
    fn serve(self: Arc<Self>, client: TcpStream) {
        match peek(&client) {
            Some([_, MARK]) => self.serve_stream(client),
            // TLS, or the end of the connection.
            Some([0x16, 0x03]) | None => {}
            Some(_) => self.serve_request(client),
        }
    }

    fn serve_request(self: Arc<Self>, mut client: TcpStream) {
        let Some((head, body)) = read_request(&mut client) else { return };
        let is_upgrade = is_upgrade(&head) && self.lie != Lie::NoUpgrade;
        let switch = format!("HTTP/1.1 101 Switching Protocols\r\n{UPGRADE}\r\n");
        if head.starts_with(b"GET ") {
            if is_upgrade {
                send(&mut client, switch.as_bytes());
                self.serve_stream(client);
            }
            return;
        }
        let request: Value = serde_json::from_slice(&body).expect("the body is JSON");
        let session = FIRST_SESSION + self.n_sessions.fetch_add(1, Ordering::SeqCst);
        let offer = self.offer(session);
        if is_upgrade {
            send(&mut client, &[switch.as_bytes(), &frame::offer(&offer)].concat());
            self.serve_first_stream(client, session, &request);
        } else {
            let length = offer.len();
            let answer =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{offer}");
            send(&mut client, answer.as_bytes());
        }
    }

    fn offer(&self, session: u64) -> String {
        let mut keys = vec![
            ("protocol", "2".to_owned()),
            ("size", self.size().to_string()),
            ("modified", "1763690000123456789".to_owned()),
            ("version", format!("\"{}\"", "9f".repeat(16))),
            ("block", self.block.to_string()),
            ("session", format!("\"{session:016x}\"")),
            ("secret", format!("\"{}\"", SECRET.map(|byte| format!("{byte:02x}")).concat())),
            ("hash", "null".to_owned()),
            ("blake3", "null".to_owned()),
        ];
        if let Lie::Offer(key, value) = self.lie {
            keys.retain(|(known, _)| *known != key);
            if !value.is_empty() {
                keys.push((key, value.to_owned()));
            }
        }
        let keys: Vec<String> = keys.iter().map(|(key, value)| format!("\"{key}\": {value}")).collect();
        format!("{{{}}}", keys.join(", "))
    }

    /// Serves stream 0 on the connection of its request, after the offer.
    fn serve_first_stream(self: Arc<Self>, client: TcpStream, session: u64, request: &Value) {
        let number = |key: &str| request.get(key).and_then(Value::as_u64).unwrap_or(0);
        if self.size() > 0
            && let Some(mut stream) = Stream::accept(self, client, 0, session)
        {
            stream.push(number("from"), number("push"));
            stream.serve();
        }
    }

    /// Serves a stream that begins with a hello.
    fn serve_stream(self: Arc<Self>, mut client: TcpStream) {
        let Some(hello) = self.read::<HELLO>(&mut client, false) else { return };
        let session = u64::from_le_bytes(hello[4..12].try_into().expect("eight bytes"));
        if hello[..] != frame::hello(hello[0], session, SECRET, hello[3] & 1) {
            return send(&mut client, &frame::refused(5, "not a hello"));
        }
        if let Some(mut stream) = Stream::accept(self, client, hello[0], session) {
            stream.serve();
        }
    }

    /// The next bytes; `None` at the end of the connection or of the test, and if none is there and `closes_idle`.
    fn read<const N: usize>(&self, client: &mut TcpStream, closes_idle: bool) -> Option<[u8; N]> {
        client.set_read_timeout(Some(TICK)).expect("a timeout is set");
        let mut bytes = [0; N];
        let mut filled = 0;
        while filled < N && !self.is_stopped() {
            match client.read(&mut bytes[filled..]) {
                Ok(0) => return None,
                Ok(n) => filled += n,
                Err(_) if filled == 0 && closes_idle => return None,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(_) => return None,
            }
        }
        (filled == N).then_some(bytes)
    }
}

/// Sends what the peer still takes; a peer that is gone is no fault of the server.
fn send(client: &mut TcpStream, bytes: &[u8]) {
    let _ = client.write_all(bytes);
}
