//! What the proxy does to a connection, and how it tells connections apart.

use std::time::Duration;

/// What a connection through the proxy is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Carries {
    /// A request and its answer.
    Control,
    /// A stream on the data port.
    Data,
    /// A stream on the control port.
    Upgraded,
}

/// One connection, when its fate is decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Connection {
    /// What it is for.
    pub carries: Carries,
    /// How many of its kind came before it.
    pub number: usize,
    /// The id in its greeting; 0 for requests.
    pub stream: u8,
    /// How many connections of the same stream came before it.
    pub attempt: usize,
}

/// How a connection ends before its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// With RST to both sides.
    Reset,
    /// With FIN to both sides.
    Close,
    /// With FIN to the client, while the server is read on: its data is cut off and nobody tells it.
    Truncate,
    /// Not at all: nothing is read, written or closed any more.
    Stall,
}

/// What happens on a connection; all counts are of bytes from the server to the client.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Fate {
    pub(super) end: Option<(u64, Ending)>,
    pub(super) rate: Option<u64>,
    pub(super) delay: Duration,
    pub(super) flips: Vec<u64>,
    pub(super) file_flips: Vec<u64>,
}

impl Fate {
    /// Nothing happens.
    pub fn fine() -> Self {
        Self::default()
    }

    /// It ends so after so many bytes.
    pub fn ends(mut self, after: u64, ending: Ending) -> Self {
        self.end = Some((after, ending));
        self
    }

    /// It carries so many bytes per second.
    pub fn rate(mut self, bytes_per_second: u64) -> Self {
        self.rate = Some(bytes_per_second);
        self
    }

    /// Every byte comes so much later, at the same rate.
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
}
