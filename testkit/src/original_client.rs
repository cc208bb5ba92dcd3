//! The client of protocol 1, written from the protocol's description over raw sockets.

use std::fs::File;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;

use crate::content::{md5, part};
use crate::http::{Afterwards, Answer, exchange};
use crate::sockets::{End, Received, connect, read_into, read_to_end, try_connect};
use crate::wait::until;

/// One request for a file, with the liberties that clients take.
#[derive(Clone, Debug)]
pub struct Ask {
    addr: SocketAddr,
    target: Vec<u8>,
    streams: u8,
    version: &'static str,
    headers: String,
    afterwards: Afterwards,
    body_apart: bool,
    patient: bool,
}

impl Ask {
    /// Asks `addr` for `target` over `streams`, exactly as the original client does.
    pub fn new(addr: SocketAddr, target: impl AsRef<[u8]>, streams: u8) -> Self {
        Self {
            addr,
            target: target.as_ref().to_vec(),
            streams,
            version: "HTTP/1.1",
            headers: String::new(),
            afterwards: Afterwards::Wait,
            body_apart: false,
            patient: false,
        }
    }

    /// Speaks HTTP/1.0.
    pub fn http_1_0(mut self) -> Self {
        self.version = "HTTP/1.0";
        self
    }

    /// Shuts its direction down after the request.
    pub fn half_close(mut self) -> Self {
        self.afterwards = Afterwards::HalfClose;
        self
    }

    /// Sends the body in a segment of its own.
    pub fn body_apart(mut self) -> Self {
        self.body_apart = true;
        self
    }

    /// Tries again while a stream's connection is refused: the original listens a little after it has answered.
    pub fn patient(mut self) -> Self {
        self.patient = true;
        self
    }

    /// Adds a header line.
    pub fn header(mut self, line: &str) -> Self {
        self.headers.push_str(line);
        self.headers.push_str("\r\n");
        self
    }

    /// Sends the request and reads the answer to its end.
    pub fn answer(&self) -> Answer {
        let body = format!("{{\"threads\": {}}}", self.streams);
        let mut head = [b"POST ", self.target.as_slice(), b" "].concat();
        head.extend_from_slice(
            format!(
                "{}\r\nHost: {}\r\nAccept-Encoding: identity\r\n{}Content-Length: {}\r\n\r\n",
                self.version,
                self.addr,
                self.headers,
                body.len()
            )
            .as_bytes(),
        );
        if self.body_apart {
            return exchange(self.addr, &[&head, body.as_bytes()], self.afterwards);
        }
        exchange(self.addr, &[&[&head, body.as_bytes()].concat()], self.afterwards)
    }

    /// Sends the request, which must be granted.
    pub fn offer(&self) -> Offer {
        let answer = self.answer();
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.end, End::Closed, "{answer:?}");
        let json: serde_json::Value = serde_json::from_str(&answer.body).expect("the body is JSON");
        let hash = json.get("hash").and_then(serde_json::Value::as_str).expect("it has a hash").to_owned();
        let port = json.get("port").and_then(serde_json::Value::as_u64).expect("it has a port");
        let port = u16::try_from(port).expect("it is a port");
        Offer {
            hash,
            data: SocketAddr::new(self.addr.ip(), port),
            streams: self.streams,
            patient: self.patient,
            answer,
        }
    }
}

/// A granted request: what the file is, and where its streams are.
#[derive(Clone, Debug)]
pub struct Offer {
    /// The MD5 as the server wrote it.
    pub hash: String,
    /// Where the streams are served.
    pub data: SocketAddr,
    /// How many there are.
    pub streams: u8,
    /// The answer as a whole.
    pub answer: Answer,
    patient: bool,
}

impl Offer {
    /// Connects and sends a stream's id.
    pub fn open(&self, id: u8) -> TcpStream {
        self.open_with(&[id])
    }

    fn open_with(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = if self.patient {
            until("the data port", || try_connect(self.data).ok())
        } else {
            connect(self.data)
        };
        stream.write_all(bytes).expect("the id is sent");
        stream
    }

    /// All of one stream.
    pub fn stream(&self, id: u8) -> Received {
        read_to_end(&self.open(id))
    }

    /// All streams at once, each with `extra` bytes after its id, in the order of their ids.
    pub fn streams_with(&self, extra: &[u8]) -> Vec<Received> {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.streams)
                .map(|id| scope.spawn(move || read_to_end(&self.open_with(&[&[id], extra].concat()))))
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("a stream works")).collect()
        })
    }

    /// The file, fetched over all streams at once and checked against the hash.
    pub fn download(&self) -> Vec<u8> {
        let file = join(&self.streams_with(&[]));
        assert_eq!(md5(&file), self.hash, "the MD5 of {} bytes", file.len());
        file
    }

    /// Fetches over all streams at once and compares every byte with a file at the same time, so that nothing has to be
    /// kept.
    pub fn compare_with(&self, path: &Path) {
        let file = File::open(path).expect("the expected file opens");
        let size = file.metadata().expect("the length is known").len();
        let errors = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for id in 0..self.streams {
                let (file, errors) = (&file, &errors);
                scope.spawn(move || {
                    let range = part(size, self.streams, id);
                    let mut offset = range.start;
                    let mut expected = vec![0; 256 << 10];
                    let mut same = true;
                    read_into(&mut self.open(id), |bytes| {
                        let expected = &mut expected[..bytes.len()];
                        same &= file.read_exact_at(expected, offset).is_ok() && *expected == *bytes;
                        offset += u64::try_from(bytes.len()).expect("a chunk fits");
                    });
                    if !same || offset != range.end {
                        errors.lock().expect("no holder panics").push((id, range, offset, same));
                    }
                });
            }
        });
        let errors = errors.into_inner().expect("no holder panics");
        assert!(errors.is_empty(), "streams (id, expected range, end, equal): {errors:?}");
    }
}

/// The bytes of all streams, joined by their ids in the order of numbers.
pub fn join(streams: &[Received]) -> Vec<u8> {
    streams.iter().flat_map(|received| received.bytes.iter().copied()).collect()
}
