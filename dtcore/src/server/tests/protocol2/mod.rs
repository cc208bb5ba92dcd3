//! Protocol 2 over loopback, against a receiver of raw sockets.

mod changes;
mod endings;
mod hellos;
mod load;
mod ranges;
mod upgrade;

use std::num::NonZeroUsize;

use super::*;
use crate::digest::{Blake3Digest, Md5Digest, RangeDigest};
use crate::manifest::{ByteRange, Manifest};
use crate::proto::v2::{
    Answer, Demand, ErrorCode, FRAME_LEN, Hello, MAX_REASON, Replacing, Reply, Secret, SessionId,
    TRAILER_LEN, Trailer, WHOLE_DIGESTS_LEN, WholeDigests, WholeDigestsReply,
};

/// More than the buffers of a connection hold.
const LARGE: u64 = 64 << 20;

impl Served {
    /// Asks for `name` in protocol 2.
    async fn session(&self, name: &str, n: u8) -> Answer {
        self.session_with(name, &format!("{{\"threads\": {n}, \"protocol\": 2}}")).await
    }

    async fn session_with(&self, name: &str, body: &str) -> Answer {
        let request = format!("POST {name} HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let answer = self.exchange(&[request.as_bytes()]).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        Answer::decode(body.as_bytes()).unwrap()
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
}

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from(i * 31 % 251).unwrap()).collect()
}

fn part(content: &[u8], range: ByteRange) -> &[u8] {
    &content[usize::try_from(range.start()).unwrap()..usize::try_from(range.end()).unwrap()]
}

/// Waits until the file has been left alone long enough for its digests to be remembered.
async fn settle(path: &PathBuf) {
    let changed = std::fs::metadata(path).unwrap().modified().unwrap();
    while changed.elapsed().unwrap_or_default() < Duration::from_millis(30) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// What came from the sender.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Got {
    Data(ByteRange, Vec<u8>, Trailer),
    Digests(WholeDigestsReply),
    Wait,
    Drain,
    Refused(ErrorCode, String),
    End,
    Reset,
}

impl Got {
    /// The bytes of a range that came with a digest that is right.
    #[track_caller]
    fn verified(self, size: u64) -> (ByteRange, Vec<u8>) {
        let Self::Data(range, bytes, trailer) = self else { panic!("{self:?}") };
        assert_eq!(trailer, Trailer(Ok(RangeDigest::of(size, range, &bytes).unwrap())), "{range}");
        (range, bytes)
    }

    #[track_caller]
    fn code(self) -> (Vec<u8>, ErrorCode) {
        let Self::Data(_, bytes, Trailer(Err(code))) = self else { panic!("{self:?}") };
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
struct Stream2 {
    socket: TcpStream,
}

fn hello(answer: &Answer, stream: u8, replacing: Replacing) -> Vec<u8> {
    let hello = Hello { stream, secret: answer.secret.clone(), session: answer.session, replacing };
    hello.encode().to_vec()
}

fn data_port(answer: &Answer) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, answer.port))
}

impl Stream2 {
    /// Connects and sends these bytes.
    async fn with(answer: &Answer, bytes: &[u8]) -> Self {
        let mut socket = connect(data_port(answer)).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        Self { socket }
    }

    async fn open(answer: &Answer, stream: u8) -> Self {
        Self::with(answer, &hello(answer, stream, Replacing::Nothing)).await
    }

    /// A stream that is surely open: it has brought a range.
    async fn begun(answer: &Answer, stream: u8) -> Self {
        let mut stream = Self::open(answer, stream).await;
        stream
            .fetch(ByteRange::with_len(0, answer.manifest.size().min(1024)))
            .await
            .verified(answer.manifest.size());
        stream
    }

    async fn demand(&mut self, demands: &[Demand]) {
        let bytes: Vec<u8> = demands.iter().flat_map(|demand| demand.encode()).collect();
        within(self.socket.write_all(&bytes)).await.unwrap();
    }

    async fn fetch(&mut self, range: ByteRange) -> Got {
        self.demand(&[Demand::Range(range)]).await;
        self.got().await
    }

    /// Waits until something has come, and leaves it there.
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

    /// The next frame, whole.
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
        match Reply::decode(&header).unwrap() {
            Reply::Data(range) => {
                let Ok(bytes) = self.exactly(usize::try_from(range.len()).unwrap()).await else {
                    return Got::Reset;
                };
                let trailer = self.array::<TRAILER_LEN>().await;
                Got::Data(range, bytes, Trailer::decode(&trailer).unwrap())
            }
            Reply::Digests(which) => {
                let bytes = self.array::<WHOLE_DIGESTS_LEN>().await;
                Got::Digests(WholeDigestsReply::decode(which, &bytes).unwrap())
            }
            Reply::Wait { .. } => Got::Wait,
            Reply::Drain => Got::Drain,
            Reply::Refused(code, len) => {
                assert!(len <= MAX_REASON);
                Got::Refused(code, String::from_utf8(self.exactly(len).await.unwrap()).unwrap())
            }
        }
    }

    /// The digests, after as many `WAIT`s as come before them.
    async fn digests(&mut self, which: WholeDigests) -> WholeDigestsReply {
        self.demand(&[Demand::Digest(which)]).await;
        loop {
            match self.got().await {
                Got::Wait => {}
                Got::Digests(digests) => return digests,
                other @ (Got::Data(..) | Got::Drain | Got::Refused(..) | Got::End | Got::Reset) => {
                    panic!("{other:?}")
                }
            }
        }
    }
}
