//! What the proxy does to a connection, and how it tells connections apart.

use std::time::Duration;

/// What a connection through the proxy is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Carries {
    /// A request and its answer, and nothing after them.
    Request,
    /// A request that was answered by an upgrade: from then on it is stream 0.
    First,
    /// A stream that began with a hello.
    Stream,
    /// A stream that began with an upgrade of a `GET`.
    Upgraded,
    /// The first stream of an upload, on the connection of its request.
    Upload,
    /// A stream of protocol 1, on the port that the answer named.
    Legacy,
}

/// One connection, when its fate is decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Connection {
    /// What it is for.
    pub carries: Carries,
    /// How many connections were before it: of requests for a request, else of streams of any kind.
    pub number: usize,
    /// Its stream; 0 for requests.
    pub stream: u8,
    /// How many connections of the same stream were before it.
    pub attempt: usize,
}

/// How a connection ends before its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// With RST to both sides.
    Reset,
    /// With FIN to both sides.
    Close,
    /// With FIN to the client, while the server is read on: its data is cut off without its knowledge.
    Truncate,
    /// Not at all: nothing is read, written or closed any more.
    Stall,
}

/// A place within a frame, in bytes from the beginning of the part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Within the header.
    Header(u64),
    /// Within the payload.
    Payload(u64),
    /// Within what follows the payload: the trailer, or the payload check.
    Trailer(u64),
}

/// What happens on a connection. Counts are of bytes from the server to the client; on an upgraded connection they
/// begin after the head of the answer.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Fate {
    pub(super) end: Option<(u64, Ending)>,
    pub(super) rate: Option<u64>,
    pub(super) delay: Duration,
    pub(super) flips: Vec<u64>,
    pub(super) file_flips: Vec<u64>,
    pub(super) frame_flips: Vec<(u8, Place)>,
    pub(super) hello_flips: Vec<u64>,
}

impl Fate {
    /// Nothing happens.
    pub fn fine() -> Self {
        Self::default()
    }

    /// It ends like this after so many bytes.
    pub fn ends(mut self, after: u64, ending: Ending) -> Self {
        self.end = Some((after, ending));
        self
    }

    /// It carries so many bytes per second.
    pub fn rate(mut self, bytes_per_second: u64) -> Self {
        self.rate = Some(bytes_per_second);
        self
    }

    /// Every byte arrives so much later, at the same rate.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// One bit of the byte at this place is flipped.
    pub fn flips(mut self, at: u64) -> Self {
        self.flips.push(at);
        self
    }

    /// One bit of this byte of the file is flipped whenever it passes; the connection must carry protocol 2.
    pub fn flips_in_file(mut self, offset: u64) -> Self {
        self.file_flips.push(offset);
        self
    }

    /// One bit of the first frame of this kind is flipped, in either direction; the connection must carry protocol 2.
    pub fn flips_in_frame(mut self, kind: u8, place: Place) -> Self {
        self.frame_flips.push((kind, place));
        self
    }

    /// One bit of this byte of the hello is flipped.
    pub fn flips_in_hello(mut self, at: u64) -> Self {
        self.hello_flips.push(at);
        self
    }
}
