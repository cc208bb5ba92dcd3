//! A server of protocol 2 with faults on demand, written from the protocol's description over raw sockets.

mod lie;

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use md5::{Digest, Md5};

use crate::frame::{self, FRAME, GREETING};
use crate::sockets::accept_within;

pub use lie::Lie;

const TICK: Duration = Duration::from_millis(5);
const SECRET: [u8; 16] = *b"0123456789abcdef";

/// A running server that gives the same bytes whatever it is asked for; ended when dropped.
#[derive(Debug)]
pub struct RangeServer {
    /// Where it listens for requests.
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    content: Vec<u8>,
    block: u64,
    lie: Lie,
    stop: AtomicBool,
    session: AtomicU64,
    greeted: Mutex<Vec<u8>>,
    asked: Mutex<Vec<Range<u64>>>,
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
            session: AtomicU64::new(0xa6),
            greeted: Mutex::default(),
            asked: Mutex::default(),
            ended: Mutex::default(),
        });
        let [control, data] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port is free"));
        let [addr, data_addr] =
            [&control, &data].map(|listener| listener.local_addr().expect("the address is known"));
        let port = data_addr.port();
        let threads = vec![
            shared.accept_all(control, move |shared, client| shared.serve_request(client, port)),
            shared.accept_all(data, |shared, client| {
                shared.serve_stream(client, shared.lie != Lie::ForeignDataPort);
            }),
        ];
        Self { addr, shared, threads }
    }

    /// The ids of all streams that greeted, in the order in which they came.
    pub fn streams(&self) -> Vec<u8> {
        self.shared.greeted.lock().expect("no holder panics").clone()
    }

    /// All ranges that were asked for, in the order in which they came.
    pub fn asked(&self) -> Vec<Range<u64>> {
        self.shared.asked.lock().expect("no holder panics").clone()
    }

    /// How many sessions were ended by the word that the transfer is over.
    pub fn ended(&self) -> usize {
        self.shared.ended.lock().expect("no holder panics").len()
    }

    /// How many sessions were granted.
    pub fn sessions(&self) -> u64 {
        self.shared.session.load(Ordering::SeqCst) - 0xa6
    }
}

impl Drop for RangeServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            // A thread that failed has failed the test by what it did not send.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn size(&self) -> u64 {
        u64::try_from(self.content.len()).expect("it fits")
    }

    fn accept_all(
        self: &Arc<Self>,
        listener: TcpListener,
        serve: impl Fn(&Self, TcpStream) + Copy + Send + 'static,
    ) -> JoinHandle<()> {
        let shared = Arc::clone(self);
        thread::spawn(move || {
            while !shared.stop.load(Ordering::SeqCst) {
                let Some(client) = accept_within(&listener, TICK) else { continue };
                let shared = Arc::clone(&shared);
                thread::spawn(move || serve(&shared, client));
            }
        })
    }

    fn serve_request(&self, mut client: TcpStream, port: u16) {
        let mut buffer = [0; 4096];
        let mut request = Vec::new();
        // The body is an object, and the only one; an upgrade has none.
        while !request.ends_with(b"}") {
            if request.starts_with(b"GET ") && request.windows(4).any(|end| end == b"\r\n\r\n") {
                send(
                    &mut client,
                    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: dt2\r\n\r\n",
                );
                return self.serve_stream(client, true);
            }
            match client.read(&mut buffer) {
                Ok(n @ 1..) => request.extend_from_slice(&buffer[..n]),
                Ok(0) | Err(_) => return,
            }
        }
        let session = self.session.fetch_add(1, Ordering::SeqCst) + 1;
        let mut keys = vec![
            ("protocol", "2".to_owned()),
            ("size", self.size().to_string()),
            ("modified", "1763690000123456789".to_owned()),
            ("version", format!("\"{}\"", "9f".repeat(16))),
            ("block", self.block.to_string()),
            ("port", port.to_string()),
            ("session", format!("\"{session:016x}\"")),
            ("secret", format!("\"{}\"", SECRET.map(|byte| format!("{byte:02x}")).concat())),
            ("hash", "null".to_owned()),
            ("blake3", "null".to_owned()),
        ];
        if let Lie::Answer(key, value) = self.lie {
            keys.retain(|(known, _)| *known != key);
            if !value.is_empty() {
                keys.push((key, value.to_owned()));
            }
        }
        let keys: Vec<String> = keys.iter().map(|(key, value)| format!("\"{key}\": {value}")).collect();
        let body = format!("{{{}}}", keys.join(", "));
        let length = body.len();
        let answer =
            format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
        let _ = client.write_all(answer.as_bytes());
    }

    fn serve_stream(&self, mut client: TcpStream, knows_sessions: bool) {
        let Some(greeting) = self.read::<GREETING>(&mut client) else { return };
        let stream = greeting[0];
        let session = u64::from_le_bytes(greeting[17..25].try_into().expect("eight bytes"));
        let first = {
            let mut greeted = self.greeted.lock().expect("no holder panics");
            let first = !greeted.contains(&stream);
            greeted.push(stream);
            first
        };
        let expected = frame::greeting(stream, SECRET, session, greeting[26] & 1);
        if greeting[..] != expected {
            return send(&mut client, &frame::refused(5, "that is no greeting"));
        }
        let refusal = self.lie.refusal(stream, first, knows_sessions);
        if let Some(code) = refusal {
            return send(&mut client, &frame::refused(code, "the test says so"));
        }
        while let Some(demand) = self.read::<FRAME>(&mut client) {
            if self.lie == Lie::Mute {
                continue;
            }
            let number = |at: usize| u64::from_le_bytes(demand[at..at + 8].try_into().expect("eight bytes"));
            match demand[0] {
                0x01 => {
                    let range = number(8)..number(8) + number(16);
                    self.asked.lock().expect("no holder panics").push(range.clone());
                    send(&mut client, &self.data(&range));
                }
                0x02 => self.send_digests(&mut client, demand[1]),
                0x03 => {
                    self.ended.lock().expect("no holder panics").insert(session);
                    return;
                }
                _ => return,
            }
        }
    }

    fn data(&self, range: &Range<u64>) -> Vec<u8> {
        let [start, end] = [range.start, range.end].map(|n| usize::try_from(n).expect("it fits"));
        let Some(content) = self.content.get(start..end) else {
            return frame::refused(5, "there is no such range");
        };
        let digest = frame::range_digest(self.size(), range.start, content);
        let lie = Some(&self.lie).filter(|lie| lie.place().is_some_and(|at| range.contains(&at)));
        if let Some(Lie::Instead(_, bytes)) = lie {
            return bytes.clone();
        }
        if let Some(Lie::Trailer(_, code)) = lie {
            return frame::data(range.start, content, *code, &[0; 32]);
        }
        if let Some(Lie::Consistent(at)) = lie {
            let mut content = content.to_vec();
            content[usize::try_from(at - range.start).expect("it fits")] ^= 0x10;
            let digest = frame::range_digest(self.size(), range.start, &content);
            return frame::data(range.start, &content, 0, &digest);
        }
        let digest = if lie.is_some() { [7; 32] } else { digest };
        frame::data(range.start, content, 0, &digest)
    }

    fn send_digests(&self, client: &mut TcpStream, code: u8) {
        let is_endless = matches!(self.lie, Lie::Waits | Lie::Hangs);
        let n_waits = if is_endless { u64::MAX } else { u64::from(self.lie == Lie::ClosesIdle) * 10 };
        for n in 1..=n_waits {
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            let hashed = if self.lie == Lie::Hangs { 1 } else { n };
            let wait = frame::header(0x83, 0, hashed, 0);
            if client.write_all(&wait).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
        let lie: &[u8] = if self.lie == Lie::WholeDigests { b"something else" } else { &[] };
        let of = [self.content.as_slice(), lie].concat();
        let md5 = (code == 3).then(|| Md5::digest(&of).into());
        send(client, &frame::digests(blake3::hash(&of).as_bytes(), md5));
    }

    /// The next bytes; `None` at the end of the connection or of the test.
    fn read<const N: usize>(&self, client: &mut TcpStream) -> Option<[u8; N]> {
        client.set_read_timeout(Some(TICK)).expect("a timeout is set");
        let mut bytes = [0; N];
        let mut filled = 0;
        while filled < N && !self.stop.load(Ordering::SeqCst) {
            match client.read(&mut bytes[filled..]) {
                Ok(0) => return None,
                Ok(n) => filled += n,
                Err(_) if N == FRAME && filled == 0 && self.lie == Lie::ClosesIdle => return None,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(_) => return None,
            }
        }
        (filled == N).then_some(bytes)
    }
}

/// Sends what the peer still takes; a peer that has gone is no fault of the server.
fn send(client: &mut TcpStream, bytes: &[u8]) {
    let _ = client.write_all(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::pattern;
    use crate::frame::Frame;
    use crate::proxy::{Fate, Proxy};
    use crate::session::Session;

    const BLOCK: u64 = 16 << 10;

    #[test]
    fn the_reference_client_and_server_of_protocol_2() {
        for size in [1, 1023, 1024, 1025, 16 << 10, (16 << 10) + 1, 300_000] {
            let content = pattern(1, size);
            let server = RangeServer::start(content.clone(), BLOCK, Lie::Nothing);
            let proxy = Proxy::plain(server.addr);
            for control in [server.addr, proxy.addr] {
                let session = Session::ask(control, "f", 3);
                let mut streams: Vec<_> = (0..3).map(|id| session.open(id)).collect();
                assert!(session.download(&mut streams) == content, "{size} bytes");
            }
        }
    }

    #[test]
    fn its_lies_are_lies() {
        let content = pattern(1, 100_000);
        let first = |lie| {
            let server = RangeServer::start(content.clone(), BLOCK, lie);
            let session = Session::ask(server.addr, "f", 1);
            let mut stream = session.open(0);
            let block = session.blocks().next().expect("it has one");
            stream.send(&frame::range(&block));
            let right = frame::range_digest(session.size, 0, &content[..16 << 10]);
            (stream.frame(), right)
        };
        let (Some(Frame::Data { digest, bytes, .. }), right) = first(Lie::Digest(77)) else {
            panic!("no data")
        };
        assert!(digest != right && bytes == content[..16 << 10]);
        let (Some(Frame::Data { digest, bytes, .. }), right) = first(Lie::Consistent(77)) else {
            panic!("no data")
        };
        assert!(digest != right && bytes != content[..16 << 10]);
        assert!(matches!(first(Lie::Trailer(0, 3)).0, Some(Frame::Data { code: 3, .. })));
        assert!(matches!(first(Lie::Refuses(6)).0, Some(Frame::Refused { code: 6, .. })));
        assert_eq!(first(Lie::Instead(5, frame::header(0x84, 0, 0, 0))).0, Some(Frame::Drain));
    }

    #[test]
    fn a_bit_flipped_on_the_way_shows() {
        let content = pattern(1, 100_000);
        let server = RangeServer::start(content.clone(), BLOCK, Lie::Nothing);
        let proxy = Proxy::on_streams(server.addr, |_| Fate::fine().flips_in_file(40_000));
        let session = Session::ask(proxy.addr, "f", 1);
        let mut stream = session.open(0);
        for (n, block) in session.blocks().enumerate() {
            stream.send(&frame::range(&block));
            let Some(Frame::Data { offset, bytes, digest, .. }) = stream.frame() else { panic!("no data") };
            let is_right = digest == frame::range_digest(session.size, offset, &bytes);
            assert_eq!(is_right, n != 2, "block {n}");
        }
    }
}
