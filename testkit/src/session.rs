//! The client of protocol 2, written from the protocol's description over raw sockets.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;

use serde_json::Value;

use crate::frame::{self, Frame};
use crate::http::{Afterwards, Answer, exchange};
use crate::sockets::{End, connect};

/// A granted session, as a client sees it.
#[derive(Clone, Debug)]
pub struct Session {
    /// Where requests go.
    pub control: SocketAddr,
    /// Where streams go.
    pub data: SocketAddr,
    /// The whole body of the answer.
    pub json: Value,
    /// The file's size.
    pub size: u64,
    /// The block's size.
    pub block: u64,
    /// The session's number.
    pub session: u64,
    /// What its streams must know.
    pub secret: [u8; 16],
}

/// Sends a request for `target` with this body and reads the answer.
pub fn post(control: SocketAddr, target: &str, body: &str) -> Answer {
    let head = format!("POST {target} HTTP/1.1\r\nHost: {control}\r\nContent-Length: {}\r\n\r\n", body.len());
    exchange(control, &[format!("{head}{body}").as_bytes()], Afterwards::Wait)
}

impl Session {
    /// Asks for `target` over `streams`, which must be granted.
    pub fn ask(control: SocketAddr, target: &str, streams: u8) -> Self {
        let answer = post(control, target, &format!("{{\"protocol\": 2, \"threads\": {streams}}}"));
        assert_eq!((answer.status, answer.end), (200, End::Closed), "{answer:?}");
        Self::of(control, &answer.body)
    }

    /// Takes an answer's body apart.
    pub fn of(control: SocketAddr, body: &str) -> Self {
        let json: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body:?}"));
        let number = |key: &str| json[key].as_u64().unwrap_or_else(|| panic!("no {key} in {json}"));
        let text = |key: &str| json[key].as_str().unwrap_or_else(|| panic!("no {key} in {json}")).to_owned();
        assert_eq!(number("protocol"), 2, "{json}");
        assert_eq!(text("version").len(), 32, "{json}");
        assert!(json["modified"].is_i64(), "{json}");
        let (session, secret) = (text("session"), text("secret"));
        assert_eq!((session.len(), secret.len()), (16, 32), "{json}");
        let port = u16::try_from(number("port")).expect("it is a port");
        Self {
            control,
            data: SocketAddr::new(control.ip(), port),
            size: number("size"),
            block: number("block"),
            session: u64::from_str_radix(&session, 16).expect("hexadecimal digits"),
            secret: u128::from_str_radix(&secret, 16).expect("hexadecimal digits").swap_bytes().to_le_bytes(),
            json,
        }
    }

    /// The blocks of the file.
    pub fn blocks(&self) -> impl Iterator<Item = Range<u64>> {
        let (size, block) = (self.size, self.block);
        (0..size.div_ceil(block)).map(move |n| n * block..size.min((n + 1) * block))
    }

    /// The greeting of a stream.
    pub fn greeting(&self, stream: u8) -> Vec<u8> {
        frame::greeting(stream, self.secret, self.session, 0)
    }

    /// The greeting of a stream that takes the place of its former connection.
    pub fn replacing(&self, stream: u8) -> Vec<u8> {
        frame::greeting(stream, self.secret, self.session, 1)
    }

    /// Connects to the data port and greets.
    pub fn open(&self, stream: u8) -> Stream {
        Stream::open(self.data, &self.greeting(stream))
    }

    /// Opens a stream over the control port.
    pub fn upgrade(&self, stream: u8) -> Stream {
        let mut socket = connect(self.control);
        let request = format!(
            "GET / HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: dt2\r\n\r\n",
            self.control
        );
        socket.write_all(request.as_bytes()).expect("the request is sent");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            std::io::Read::read_exact(&mut socket, &mut byte).expect("the answer's head comes");
            head.extend(byte);
        }
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 101 "), "{head:?}");
        // The first is a list, in which HTTP lets others stand too.
        assert!(head.contains("upgrade: dt2\r\n") && head.contains("connection: upgrade"), "{head:?}");
        socket.write_all(&self.greeting(stream)).expect("the greeting is sent");
        Stream { socket }
    }

    /// Fetches one range, whose digest must be right.
    pub fn fetch(&self, stream: &mut Stream, range: &Range<u64>) -> Vec<u8> {
        stream.send(&frame::range(range));
        self.receive(stream, range)
    }

    /// Reads the range that was asked for.
    pub fn receive(&self, stream: &mut Stream, range: &Range<u64>) -> Vec<u8> {
        match stream.frame() {
            Some(Frame::Data { offset, bytes, code: 0, digest }) => {
                let length = u64::try_from(bytes.len()).expect("it fits");
                assert_eq!(offset..offset + length, *range);
                assert_eq!(digest, frame::range_digest(self.size, offset, &bytes), "of {range:?}");
                bytes
            }
            frame => panic!("{range:?} expected, got {frame:?}"),
        }
    }

    /// Fetches the whole file over all of `streams`, block by block in turn, and ends the session.
    pub fn download(&self, streams: &mut [Stream]) -> Vec<u8> {
        let turns = streams.len();
        let mut file = Vec::new();
        for (n, block) in self.blocks().enumerate() {
            file.extend(self.fetch(&mut streams[n % turns], &block));
        }
        let [first, ..] = streams else { return file };
        let (blake3, _) = first.digests(1);
        assert_eq!(blake3, *blake3::hash(&file).as_bytes(), "the file's hash");
        first.send(&frame::end());
        file
    }
}

/// An open stream.
#[derive(Debug)]
pub struct Stream {
    /// The connection.
    pub socket: TcpStream,
}

impl Stream {
    /// Connects and sends a greeting, whatever it is.
    pub fn open(data: SocketAddr, greeting: &[u8]) -> Self {
        let mut socket = connect(data);
        socket.write_all(greeting).expect("the greeting is sent");
        Self { socket }
    }

    /// Sends bytes, which a peer that has gone need not take.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes);
    }

    /// The next frame; `None` at the end.
    pub fn frame(&mut self) -> Option<Frame> {
        Frame::read(&mut self.socket)
    }

    /// Asks for the file's digests and waits as long as the sender says so.
    pub fn digests(&mut self, code: u8) -> ([u8; 32], [u8; 16]) {
        self.send(&frame::digest(code));
        loop {
            match self.frame() {
                Some(Frame::Wait(_)) => {}
                Some(Frame::Digests { code: answered, blake3, md5 }) if answered == code => {
                    return (blake3, md5);
                }
                frame => panic!("digests expected, got {frame:?}"),
            }
        }
    }

    /// Fails unless the stream is refused with one of these codes, or none of them when empty, and then ends.
    #[track_caller]
    pub fn assert_refused(&mut self, codes: &[u8], what: &str) {
        match self.frame() {
            Some(Frame::Refused { code, reason }) => {
                assert!(codes.contains(&code), "{what}: refused with {code}, {reason:?}");
                assert!(!reason.is_empty() && !reason.contains(char::is_control), "{what}: {reason:?}");
            }
            None if codes.is_empty() => return,
            frame => panic!("{what}: {codes:?} expected, got {frame:?}"),
        }
        assert_eq!(self.frame(), None, "{what}: the stream ends");
    }
}
