//! The server of protocol 1, written from the protocol's description over raw sockets, with faults on demand.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::content::{md5_of_file, part};
use crate::http::{BETWEEN_SEGMENTS, read_request};
use crate::sockets::{LateListener, accept_within, reset, reset_after_data};
use crate::wait::PATIENCE;

mod script;

pub use script::{Answering, Fault, Script, StreamEnd, Streams};

/// How often a waiting thread looks whether the server is to end.
const TICK: Duration = Duration::from_millis(5);

/// A running server that gives the same file whatever it is asked for; ended when dropped.
#[derive(Debug)]
pub struct OriginalServer {
    /// Where it listens for requests.
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    size: u64,
    hash: String,
    script: Script,
    stop: AtomicBool,
    released: AtomicBool,
    requests: Mutex<Vec<Vec<u8>>>,
    ids: Mutex<Vec<u8>>,
}

impl OriginalServer {
    /// Serves the file at `path`.
    pub fn start(path: &Path, script: Script) -> Self {
        Self::start_knowing(path, md5_of_file(path), script)
    }

    /// Serves the file at `path` whose MD5 is known already.
    pub fn start_knowing(path: &Path, hash: String, script: Script) -> Self {
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            size: std::fs::metadata(path).expect("the file is there").len(),
            hash,
            script,
            stop: AtomicBool::new(false),
            released: AtomicBool::new(false),
            requests: Mutex::default(),
            ids: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let addr = listener.local_addr().expect("the address is known");
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.serve_requests(&listener)
        });
        Self { addr, shared, thread: Some(thread) }
    }

    /// Lets the held streams go on.
    pub fn release(&self) {
        self.shared.released.store(true, Ordering::SeqCst);
    }

    /// The requests as they arrived.
    pub fn requests(&self) -> Vec<Vec<u8>> {
        self.shared.requests.lock().expect("no holder panics").clone()
    }

    /// The ids of the streams that were opened, in the order in which they arrived.
    pub fn ids(&self) -> Vec<u8> {
        self.shared.ids.lock().expect("no holder panics").clone()
    }
}

impl Drop for OriginalServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // A thread that failed has failed the test by what it did not send.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn accept(&self, listener: &TcpListener) -> Option<TcpStream> {
        while !self.stopped() {
            if let Some(stream) = accept_within(listener, TICK) {
                return Some(stream);
            }
        }
        None
    }

    fn serve_requests(self: &Arc<Self>, listener: &TcpListener) {
        while let Some(stream) = self.accept(listener) {
            let shared = Arc::clone(self);
            std::thread::spawn(move || shared.serve_request(stream));
        }
    }

    fn serve_request(self: &Arc<Self>, mut stream: TcpStream) {
        let Some((request, body)) = read_request(&mut stream) else { return };
        let streams = threads(&body);
        self.requests.lock().expect("no holder panics").push([request, body].concat());
        let hash = match &self.script.answer {
            Answering::Right => self.hash.clone(),
            Answering::WrongHash => "0123456789abcdef0123456789abcdef".to_owned(),
            Answering::Nothing => return self.hold(&stream),
            Answering::Bytes(bytes) => return send(&mut stream, bytes),
            Answering::Body(body) => return send(&mut stream, &[head(200, "OK").as_bytes(), body].concat()),
            Answering::EndlessBody => return self.send_for_ever(stream, &head(200, "OK"), "       "),
            Answering::EndlessHeader => {
                return self.send_for_ever(stream, "HTTP/1.0 200 OK\r\n", "X-A: aaaa\r\n");
            }
            Answering::Status(status, reason) => {
                let body = r#"{"error": "the test says so"}"#;
                return send(&mut stream, format!("{}{body}", head(*status, reason)).as_bytes());
            }
        };
        let late = LateListener::bind();
        let mut head = head(200, "OK");
        if let Some(size) = &self.script.size_header {
            head.insert_str(head.len() - 2, size);
        }
        let answer = format!("{head}{{\"hash\": \"{hash}\", \"port\": {}}}", late.addr().port());
        // Without its pause it listens before it answers: a proxy between it and the client does not try again.
        let listening = if self.script.listens_after.is_zero() { Ok(late.listen()) } else { Err(late) };
        if self.script.in_two_segments {
            let (first, second) = answer.split_at(answer.len() - 20);
            send(&mut stream, first.as_bytes());
            std::thread::sleep(BETWEEN_SEGMENTS);
            send(&mut stream, second.as_bytes());
        } else {
            send(&mut stream, answer.as_bytes());
        }
        let shared = Arc::clone(self);
        std::thread::spawn(move || shared.serve_streams(listening, streams));
        std::thread::sleep(self.script.closes_after);
    }

    fn send_for_ever(&self, mut stream: TcpStream, head: &str, more: &str) {
        let more = more.repeat(4096);
        let begin = Instant::now();
        let mut open = stream.write_all(head.as_bytes()).is_ok();
        while open && !self.stopped() && begin.elapsed() < PATIENCE {
            open = stream.write_all(more.as_bytes()).is_ok();
        }
    }

    fn serve_streams(self: &Arc<Self>, listening: Result<TcpListener, LateListener>, streams: u8) {
        let listener = listening.unwrap_or_else(|late| {
            std::thread::sleep(self.script.listens_after);
            late.listen()
        });
        for _ in 0..streams {
            let Some(stream) = self.accept(&listener) else { return };
            let shared = Arc::clone(self);
            std::thread::spawn(move || shared.serve_stream(stream, streams));
        }
    }

    fn serve_stream(&self, mut stream: TcpStream, streams: u8) {
        let mut id = [0];
        if stream.read_exact(&mut id).is_err() {
            return;
        }
        let [id] = id;
        self.ids.lock().expect("no holder panics").push(id);
        if id >= streams {
            return;
        }
        let file = File::open(&self.path).expect("the served file opens");
        let range = part(self.size, streams, id);
        let len = range.end - range.start;
        let fault = self.script.fault(id);
        let sender = Sender { file, range, flipped: None };
        match fault {
            None => {
                if sender.send(&mut stream, 0, len) && self.script.stream_end == StreamEnd::Reset {
                    reset_after_data(stream);
                }
            }
            Some(Fault::Flipped(at)) => {
                Sender { flipped: Some(at), ..sender }.send(&mut stream, 0, len);
            }
            Some(Fault::EndsAfter(n)) => {
                sender.send(&mut stream, 0, n.min(len));
            }
            Some(Fault::ResetsAfter(n)) => {
                sender.send(&mut stream, 0, n.min(len));
                reset(stream);
            }
            Some(Fault::StallsAfter(n)) => {
                sender.send(&mut stream, 0, n.min(len));
                self.hold(&stream);
            }
            Some(Fault::HoldsAfter(n)) => {
                let n = n.min(len);
                sender.send(&mut stream, 0, n);
                while !self.released.load(Ordering::SeqCst) && !self.stopped() {
                    std::thread::sleep(TICK);
                }
                sender.send(&mut stream, n, len);
            }
            Some(Fault::Surplus(n)) => {
                sender.send(&mut stream, 0, len);
                send(&mut stream, &vec![b'x'; usize::try_from(n).expect("a small number")]);
            }
        }
    }

    /// Keeps a connection open until the peer or the test ends.
    fn hold(&self, mut stream: &TcpStream) {
        stream.set_read_timeout(Some(TICK)).expect("a timeout is set");
        let mut buffer = [0; 64];
        while !self.stopped() {
            match stream.read(&mut buffer) {
                Ok(0) => return,
                Ok(_) => {}
                // A wait with a timeout is also interrupted when the process is paused for a moment.
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => {
                    eprintln!("the reference server lets a held connection go: {error}");
                    return;
                }
            }
        }
    }
}

struct Sender {
    file: File,
    range: std::ops::Range<u64>,
    flipped: Option<u64>,
}

impl Sender {
    /// Sends these bytes of the part; false when the peer no longer takes them.
    fn send(&self, stream: &mut TcpStream, mut from: u64, to: u64) -> bool {
        let mut buffer = vec![0; 256 << 10];
        while from < to {
            let n = usize::try_from(to - from).unwrap_or(usize::MAX).min(buffer.len());
            let chunk = &mut buffer[..n];
            self.file.read_exact_at(chunk, self.range.start + from).expect("the served file is read");
            let flipped =
                self.flipped.and_then(|at| at.checked_sub(from)).and_then(|at| usize::try_from(at).ok());
            if let Some(byte) = flipped.and_then(|at| chunk.get_mut(at)) {
                *byte ^= 0x10;
            }
            if stream.write_all(chunk).is_err() {
                return false;
            }
            from += u64::try_from(n).expect("a chunk fits");
        }
        true
    }
}

fn head(status: u16, reason: &str) -> String {
    format!(
        "HTTP/1.0 {status} {reason}\r\nServer: BaseHTTP/0.6 Python/3.12\r\n\
         Date: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-type: text/plain\r\n\r\n"
    )
}

/// Sends what the peer still takes; a peer that has gone is no fault of the server.
fn send(stream: &mut TcpStream, bytes: &[u8]) {
    let _ = stream.write_all(bytes);
}

fn threads(body: &[u8]) -> u8 {
    let json: serde_json::Value = serde_json::from_slice(body).expect("the body is JSON");
    let threads = json.get("threads").and_then(serde_json::Value::as_u64).expect("it has threads");
    u8::try_from(threads).expect("at most 255")
}
