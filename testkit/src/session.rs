//! The client of protocol 2, written from the protocol's description over raw sockets.

use std::collections::VecDeque;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;

use serde_json::Value;

use crate::frame::{self, Frame};
use crate::http::{Afterwards, Answer, exchange, read_head};
use crate::sockets::{End, connect};

/// The two headers that request an upgrade.
pub const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: dt2\r\n";

/// A session as a client sees it.
#[derive(Clone, Debug)]
pub struct Session {
    /// Where the server listens.
    pub server: SocketAddr,
    /// The complete offer.
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
pub fn post(server: SocketAddr, target: &str, body: &str) -> Answer {
    exchange(server, &[&request(server, target, "", body)], Afterwards::Wait)
}

/// The bytes of a request with further header lines.
pub fn request(server: SocketAddr, target: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let head =
        format!("POST {target} HTTP/1.1\r\nHost: {server}\r\n{headers}Content-Length: {length}\r\n\r\n");
    format!("{head}{body}").into_bytes()
}

/// The bytes of a request for a stream over HTTP.
pub fn upgrade_request(server: SocketAddr) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: {server}\r\n{UPGRADE}\r\n").into_bytes()
}

/// Fails unless this is the head of an answer that upgrades.
#[track_caller]
pub fn assert_upgraded(head: &[u8]) {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head:?}");
    // The first is a list, in which HTTP allows other names too.
    assert!(head.contains("upgrade: dt2\r\n") && head.contains("connection: upgrade"), "{head:?}");
}

/// The body of a request for protocol 2.
pub fn body(streams: u8, from: u64, push: u64) -> String {
    format!("{{\"threads\": {streams}, \"protocol\": 2, \"from\": {from}, \"push\": {push}}}")
}

impl Session {
    /// Requests `target` over `streams` without an upgrade: the offer is the body of the answer.
    pub fn request(server: SocketAddr, target: &str, streams: u8) -> Self {
        let answer = post(server, target, &format!("{{\"protocol\": 2, \"threads\": {streams}}}"));
        assert_eq!((answer.status, answer.end), (200, End::Closed), "{answer:?}");
        Self::of(server, &answer.body)
    }

    /// Requests `target` with an upgrade of the request's connection, which becomes stream 0; a pushed run is not read
    /// yet.
    pub fn upgrade(server: SocketAddr, target: &str, streams: u8, from: u64, push: u64) -> (Self, Stream) {
        let mut stream = Stream::of(connect(server));
        stream.send(&request(server, target, UPGRADE, &body(streams, from, push)));
        stream.read_upgrade();
        match stream.frame() {
            Some(Frame::Offer(json)) => (Self::of(server, &json), stream),
            frame => panic!("an offer expected, got {frame:?}"),
        }
    }

    /// Takes an offer apart.
    pub fn of(server: SocketAddr, json: &str) -> Self {
        let json: Value = serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json:?}"));
        let number = |key: &str| json[key].as_u64().unwrap_or_else(|| panic!("no {key} in {json}"));
        let text = |key: &str| json[key].as_str().unwrap_or_else(|| panic!("no {key} in {json}")).to_owned();
        assert_eq!(number("protocol"), 2, "{json}");
        assert_eq!(text("version").len(), 32, "{json}");
        assert!(json["modified"].is_i64(), "{json}");
        assert_eq!(json.get("port"), None, "{json}");
        let (session, secret) = (text("session"), text("secret"));
        assert_eq!((session.len(), secret.len()), (16, 32), "{json}");
        Self {
            server,
            size: number("size"),
            block: number("block"),
            session: u64::from_str_radix(&session, 16).expect("hexadecimal digits"),
            secret: u128::from_str_radix(&secret, 16).expect("hexadecimal digits").swap_bytes().to_le_bytes(),
            json,
        }
    }

    /// The number of blocks.
    pub fn n_blocks(&self) -> u64 {
        self.size.div_ceil(self.block)
    }

    /// The blocks in runs of at most `count`.
    pub fn runs(&self, count: u64) -> impl Iterator<Item = Range<u64>> + use<> {
        let n = self.n_blocks();
        (0..n.div_ceil(count)).map(move |run| run * count..n.min((run + 1) * count))
    }

    /// The bytes of a run of blocks.
    pub fn bytes_of(&self, blocks: &Range<u64>) -> Range<u64> {
        blocks.start * self.block..self.size.min(blocks.end * self.block)
    }

    /// The part of the file's `content` that is a run of blocks.
    pub fn part<'a>(&self, content: &'a [u8], blocks: &Range<u64>) -> &'a [u8] {
        let bytes = self.bytes_of(blocks);
        let [start, end] = [bytes.start, bytes.end].map(|n| usize::try_from(n).expect("it fits"));
        &content[start..end]
    }

    /// The run that a sender pushes for such a request, if it pushes one.
    pub fn pushed(&self, from: u64, push: u64) -> Option<Range<u64>> {
        let first = from / self.block;
        let budget = push.min(16 << 20);
        let fits = |end: &u64| {
            let bytes = self.bytes_of(&(first..*end));
            bytes.end - bytes.start <= budget
        };
        if from >= self.size {
            return None;
        }
        (first + 1..=self.n_blocks()).take_while(fits).last().map(|end| first..end)
    }

    /// The hello of a stream.
    pub fn hello(&self, stream: u8) -> Vec<u8> {
        frame::hello(stream, self.session, self.secret, 0)
    }

    /// The hello of a stream that replaces its former connection.
    pub fn replacing(&self, stream: u8) -> Vec<u8> {
        frame::hello(stream, self.session, self.secret, 1)
    }

    /// Dials a stream.
    pub fn open(&self, stream: u8) -> Stream {
        Stream::open(self.server, &self.hello(stream))
    }

    /// Opens a stream over HTTP, as through a reverse proxy; the hello does not wait for the answer.
    pub fn open_over_http(&self, stream: u8) -> Stream {
        let request = upgrade_request(self.server);
        let mut stream = Stream::open(self.server, &[request, self.hello(stream)].concat());
        stream.read_upgrade();
        stream
    }

    /// The frame that requests a run.
    pub fn run(&self, blocks: &Range<u64>) -> Vec<u8> {
        let bytes = self.bytes_of(blocks);
        frame::run(blocks, bytes.end - bytes.start)
    }

    /// Fetches the digests of one run, and no bytes.
    pub fn prove(&self, stream: &mut Stream, blocks: &Range<u64>) -> Vec<[u8; frame::DIGEST]> {
        let bytes = self.bytes_of(blocks);
        let length = bytes.end - bytes.start;
        stream.send(&frame::proof_request(blocks, length));
        match stream.data() {
            Some(Frame::Proof { first, length: answered, code: 0, digests }) => {
                assert_eq!((first, answered), (blocks.start, length), "{blocks:?}");
                digests
            }
            frame => panic!("the digests of {blocks:?} expected, got {frame:?}"),
        }
    }

    /// Fetches one run, whose digests must be right.
    pub fn fetch(&self, stream: &mut Stream, blocks: &Range<u64>) -> Vec<u8> {
        stream.send(&self.run(blocks));
        self.receive(stream, blocks)
    }

    /// Reads the run that was requested, or is pushed.
    pub fn receive(&self, stream: &mut Stream, blocks: &Range<u64>) -> Vec<u8> {
        match stream.data() {
            Some(Frame::Data { first, bytes, code: 0, digests }) => {
                let (length, offset) = (u64::try_from(bytes.len()).expect("it fits"), first * self.block);
                assert_eq!((first, offset..offset + length), (blocks.start, self.bytes_of(blocks)));
                assert_eq!(
                    digests,
                    frame::block_digests(self.size, self.block, offset, &bytes),
                    "{blocks:?}"
                );
                bytes
            }
            frame => panic!("{blocks:?} expected, got {frame:?}"),
        }
    }

    /// Fetches the complete file over all of `streams` in turn, in runs of up to three blocks, and ends the session.
    pub fn download(&self, streams: &mut [Stream]) -> Vec<u8> {
        let turns = streams.len();
        let mut file = Vec::new();
        for (n, run) in self.runs(3).enumerate() {
            file.extend(self.fetch(&mut streams[n % turns], &run));
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
    /// Frames that arrived before the one that was waited for.
    early: VecDeque<Frame>,
}

impl Stream {
    /// A stream on a connection that stands.
    pub fn of(socket: TcpStream) -> Self {
        Self { socket, early: VecDeque::new() }
    }

    /// Connects and sends a hello, or anything else.
    pub fn open(server: SocketAddr, hello: &[u8]) -> Self {
        let mut socket = connect(server);
        socket.write_all(hello).expect("the hello is sent");
        Self::of(socket)
    }

    fn read_upgrade(&mut self) {
        let head = read_head(&mut self.socket).expect("the answer has a head");
        assert_upgraded(&head);
    }

    /// Sends bytes, which a peer that is gone need not take.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes);
    }

    /// The next frame; `None` at the end.
    pub fn frame(&mut self) -> Option<Frame> {
        self.early.pop_front().or_else(|| Frame::read(&mut self.socket))
    }

    /// The next run. Digests that arrive before it are kept; whatever else arrives instead is returned.
    pub fn data(&mut self) -> Option<Frame> {
        self.next_but(|frame| matches!(frame, Frame::Digests { .. }))
    }

    /// The next frame that is neither `WAIT` nor to be kept for later.
    fn next_but(&mut self, is_for_later: impl Fn(&Frame) -> bool) -> Option<Frame> {
        if let Some(at) = self.early.iter().position(|frame| !is_for_later(frame)) {
            return self.early.remove(at);
        }
        loop {
            let frame = Frame::read(&mut self.socket)?;
            if is_for_later(&frame) {
                self.early.push_back(frame);
            } else if !matches!(frame, Frame::Wait(_)) {
                return Some(frame);
            }
        }
    }

    /// Requests the file's digests and waits as long as the sender says so. Runs that arrive before them are kept.
    pub fn digests(&mut self, code: u8) -> ([u8; 32], [u8; 16]) {
        self.send(&frame::digest(code));
        match self.next_but(|frame| matches!(frame, Frame::Data { .. })) {
            Some(Frame::Digests { code: answered, blake3, md5 }) if answered == code => (blake3, md5),
            frame => panic!("digests expected, got {frame:?}"),
        }
    }

    /// Fails unless the stream is refused with one of these codes, or ends at once if `codes` is empty, and then ends.
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
