//! Protocol 2 over loopback, against a receiver of raw sockets.

mod changes;
mod digests;
mod endings;
mod hellos;
mod load;
mod proofs;
mod push;
mod runs;
mod sessions;
mod upgrade;

use std::num::NonZeroUsize;

use super::*;
use crate::digest::{Blake3Digest, Md5Digest, RangeDigest};
use crate::manifest::{BlockRun, ByteRange, Manifest};
use crate::num::{to_u64, to_usize};
use crate::proto::v2::{
    ErrorCode, FRAME_LEN, Hello, MAX_REASON, PAYLOAD_CHECK_LEN, Replacing, ReportedDigests, Request,
    Response, Secret, SessionId, SessionOffer, TRAILER_LEN, TrailerHead, WHOLE_DIGESTS_LEN, WholeDigests,
    WireRun, checked_payload,
};
use crate::send::{StreamFailure, StreamRefusal};

/// More than the buffers of a connection hold.
const LARGE: u64 = 64 << 20;

/// The size of the blocks of the files here.
const BLOCK: u64 = 64 << 10;

/// How many of these blocks the longest run has.
const LONGEST: u32 = 256;

impl Served {
    /// Requests a session for `name`, whose streams all begin with a hello.
    async fn session(&self, name: &str, n: u8) -> SessionOffer {
        self.session_with(name, &format!("{{\"threads\": {n}, \"protocol\": 2}}")).await
    }

    async fn session_with(&self, name: &str, body: &str) -> SessionOffer {
        let request = format!("POST {name} HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let answer = self.exchange(&[request.as_bytes()]).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        SessionOffer::decode(body.as_bytes()).unwrap()
    }

    /// Connects and sends a hello.
    async fn open(&self, offer: &SessionOffer, stream: u8) -> Peer {
        self.send(offer, &hello(offer, stream, Replacing::Nothing)).await
    }

    /// Connects and sends these bytes.
    async fn send(&self, offer: &SessionOffer, bytes: &[u8]) -> Peer {
        let mut socket = connect(self.address).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        Peer { socket, manifest: offer.manifest }
    }

    /// A stream that is open for certain: its first block has arrived.
    async fn open_stream(&self, offer: &SessionOffer, stream: u8) -> Peer {
        let mut stream = self.open(offer, stream).await;
        stream.fetch(0, 1).await;
        stream
    }

    async fn failed(&mut self) -> StreamFailure {
        let failed = |event: &ServerEvent| {
            if let ServerEvent::StreamFailed { reason, .. } = event { Some(*reason) } else { None }
        };
        self.event(failed).await
    }

    async fn stream_finished(&mut self) {
        self.event(|event| matches!(event, ServerEvent::StreamFinished { .. }).then_some(())).await;
    }

    async fn refused(&mut self) -> StreamRefusal {
        let refused = |event: &ServerEvent| {
            if let ServerEvent::StreamRefused { reason, .. } | ServerEvent::ConnectionRefused { reason, .. } =
                event
            {
                Some(*reason)
            } else {
                None
            }
        };
        self.event(refused).await
    }
}

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from(i * 31 % 251).unwrap()).collect()
}

fn part(content: &[u8], range: ByteRange) -> &[u8] {
    &content[to_usize(range.start())..to_usize(range.end())]
}

/// Waits until the file has been left alone long enough for its digests to be remembered.
async fn settle(path: &PathBuf) {
    let changed = std::fs::metadata(path).unwrap().modified().unwrap();
    while changed.elapsed().unwrap_or_default() < Duration::from_millis(30) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A frame of the sender, or the end of the stream.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Got {
    Offer(SessionOffer),
    Data(BlockRun, Vec<u8>, Result<Vec<RangeDigest>, ErrorCode>),
    Proof(BlockRun, Result<Vec<RangeDigest>, ErrorCode>),
    Digests(ReportedDigests),
    Wait(u64),
    Drain,
    Refused(ErrorCode, String),
    End,
    Reset,
}

impl Got {
    #[track_caller]
    fn code(self) -> (Vec<u8>, ErrorCode) {
        let Self::Data(_, bytes, Err(code)) = self else { panic!("{self:?}") };
        (bytes, code)
    }

    #[track_caller]
    fn refused(self) -> ErrorCode {
        let Self::Refused(code, reason) = self else { panic!("{self:?}") };
        assert!(!reason.is_empty());
        code
    }
}

/// The receiver's side of a stream.
struct Peer {
    socket: TcpStream,
    manifest: Manifest,
}

fn hello(offer: &SessionOffer, stream: u8, replacing: Replacing) -> Vec<u8> {
    let hello = Hello { stream, secret: offer.secret.clone(), session: offer.session, replacing };
    hello.encode().to_vec()
}

fn wire_run(manifest: &Manifest, first: u64, count: u32) -> WireRun {
    let run = manifest.run(first, count).unwrap();
    WireRun { first, count, length: manifest.run_len(run).unwrap() }
}

/// The request for a run that the manifest has.
fn run_of(manifest: &Manifest, first: u64, count: u32) -> Request {
    Request::Run(wire_run(manifest, first, count))
}

impl Peer {
    async fn request(&mut self, requests: &[Request]) {
        let bytes: Vec<u8> = requests.iter().flat_map(|request| request.encode()).collect();
        within(self.socket.write_all(&bytes)).await.unwrap();
    }

    async fn request_run(&mut self, first: u64, count: u32) {
        let request = run_of(&self.manifest, first, count);
        self.request(&[request]).await;
    }

    /// Requests four runs of 16 MiB, more than fits into the connection.
    async fn request_much(&mut self) {
        for i in 0..4 {
            self.request_run(i * u64::from(LONGEST), LONGEST).await;
        }
    }

    /// Requests a run, and returns its bytes, which are verified.
    async fn fetch(&mut self, first: u64, count: u32) -> Vec<u8> {
        self.request_run(first, count).await;
        self.received(first, count).await
    }

    /// The bytes of the run that arrives next, which are verified.
    async fn received(&mut self, first: u64, count: u32) -> Vec<u8> {
        let got = self.got().await;
        let expected = self.manifest.run(first, count).unwrap();
        let Got::Data(run, bytes, Ok(digests)) = got else { panic!("{first}+{count}: {got:?}") };
        assert_eq!(run, expected);
        let mut rest = bytes.as_slice();
        for (block, digest) in self.manifest.blocks_of(run).zip(digests) {
            let range = self.manifest.range(block);
            let (block, later) = rest.split_at(to_usize(range.len()));
            assert_eq!(RangeDigest::of(self.manifest.size(), range, block), Some(digest), "{range}");
            rest = later;
        }
        bytes
    }

    /// Waits until something has arrived, and leaves it there.
    async fn answering(&self) {
        assert_eq!(within(self.socket.peek(&mut [0])).await.unwrap(), 1);
    }

    async fn exactly(&mut self, n: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; n];
        within(self.socket.read_exact(&mut bytes)).await.map(|_| bytes)
    }

    async fn array<const N: usize>(&mut self) -> [u8; N] {
        self.exactly(N).await.unwrap().try_into().unwrap()
    }

    /// A payload, whose check is verified.
    async fn payload(&mut self, header: &[u8; FRAME_LEN], len: usize) -> Vec<u8> {
        let bytes = self.exactly(len + PAYLOAD_CHECK_LEN).await.unwrap();
        checked_payload(header, &bytes).unwrap().to_vec()
    }

    /// What follows the data of a run.
    async fn trailer(&mut self, run: WireRun) -> (BlockRun, Result<Vec<RangeDigest>, ErrorCode>) {
        let WireRun { first, count, length } = run;
        let run = self.manifest.run(first, count).unwrap();
        assert_eq!(self.manifest.run_len(run), Some(length));
        let head = TrailerHead::decode(&self.array::<TRAILER_LEN>().await).unwrap();
        assert_eq!(head.count, count);
        let mut digests = Vec::new();
        for _ in 0..count {
            digests.push(RangeDigest(self.array::<32>().await));
        }
        if head.result.is_err() {
            assert!(digests.iter().all(|digest| *digest == RangeDigest([0; 32])));
        }
        (run, head.result.map(|_| digests))
    }

    /// The next complete frame.
    async fn got(&mut self) -> Got {
        let mut first = [0];
        match within(self.socket.read(&mut first)).await {
            Ok(0) => return Got::End,
            Ok(_) => {}
            Err(_) => return Got::Reset,
        }
        let mut header = [0; FRAME_LEN];
        header[0] = first[0];
        header[1..].copy_from_slice(&self.exactly(FRAME_LEN - 1).await.unwrap());
        match Response::decode(&header).unwrap() {
            Response::Offer(len) => {
                Got::Offer(SessionOffer::decode(&self.payload(&header, len).await).unwrap())
            }
            Response::Data(run) => {
                let Ok(bytes) = self.exactly(to_usize(run.length)).await else { return Got::Reset };
                let (run, digests) = self.trailer(run).await;
                Got::Data(run, bytes, digests)
            }
            Response::Proof(run) => {
                let (run, digests) = self.trailer(run).await;
                Got::Proof(run, digests)
            }
            Response::Digests(which) => {
                let payload = self.payload(&header, WHOLE_DIGESTS_LEN).await;
                Got::Digests(ReportedDigests::decode(which, &payload).unwrap())
            }
            Response::Wait { hashed } => Got::Wait(hashed),
            Response::Drain => Got::Drain,
            Response::Refused(code, len) => {
                assert!(len <= MAX_REASON);
                Got::Refused(code, String::from_utf8(self.payload(&header, len).await).unwrap())
            }
        }
    }

    /// The digests, after any number of `WAIT`s.
    async fn digests(&mut self, which: WholeDigests) -> ReportedDigests {
        self.request(&[Request::Digest(which)]).await;
        loop {
            let got = self.got().await;
            if let Got::Digests(digests) = got {
                return digests;
            }
            assert!(matches!(got, Got::Wait(_)), "{got:?}");
        }
    }
}
