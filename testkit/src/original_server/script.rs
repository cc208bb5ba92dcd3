//! What the reference server does: how it answers, how its streams end, and what goes wrong on which.

use std::time::Duration;

/// How the server behaves.
#[derive(Clone, Debug)]
pub struct Script {
    /// What it answers to a request.
    pub answer: Answering,
    /// Whether the answer arrives in two segments, cut in the middle of its JSON.
    pub in_two_segments: bool,
    /// How long after the answer it closes the control connection.
    pub closes_after: Duration,
    /// How long after the answer it begins to listen for streams.
    pub listens_after: Duration,
    /// A header line with the size, as `dtserver` sends it and the original does not.
    pub size_header: Option<String>,
    /// How an undisturbed stream ends.
    pub stream_end: StreamEnd,
    /// What goes wrong on which stream.
    pub faults: Vec<(Streams, Fault)>,
}

/// What the server answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answering {
    /// The right hash and port.
    Right,
    /// The right port with the hash of something else.
    WrongHash,
    /// Nothing, on an open connection.
    Nothing,
    /// These bytes, and then the end of the connection.
    Bytes(Vec<u8>),
    /// A correct head with these bytes as the body.
    Body(Vec<u8>),
    /// A correct head with a body that does not end.
    EndlessBody,
    /// Header lines that do not end.
    EndlessHeader,
    /// A refusal with this status line's number and reason.
    Status(u16, &'static str),
}

/// How a stream ends after its data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamEnd {
    /// With FIN.
    Close,
    /// With RST, after all data has been acknowledged.
    Reset,
}

/// Which streams a fault is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Streams {
    /// The one with this id.
    Only(u8),
    /// Every one.
    Every,
}

/// What goes wrong on a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The byte at this place of the part is another one.
    Flipped(u64),
    /// The part ends after so many bytes, as if complete.
    EndsAfter(u64),
    /// The connection is reset after so many bytes.
    ResetsAfter(u64),
    /// Nothing more comes after so many bytes, on an open connection.
    StallsAfter(u64),
    /// So many bytes arrive, and the rest when the test calls [`OriginalServer::release`](super::OriginalServer::release).
    HoldsAfter(u64),
    /// So many bytes too many arrive.
    Surplus(u64),
}

impl Script {
    /// The original's behaviour: the connection is closed half a second after the answer.
    pub fn original() -> Self {
        Self {
            answer: Answering::Right,
            in_two_segments: false,
            closes_after: Duration::from_millis(500),
            listens_after: Duration::from_micros(1500),
            size_header: None,
            stream_end: StreamEnd::Close,
            faults: vec![],
        }
    }

    /// The original without its pauses, for tests of many transfers.
    pub fn swift() -> Self {
        Self { closes_after: Duration::ZERO, listens_after: Duration::ZERO, ..Self::original() }
    }

    /// A swift original with another answer.
    pub fn answering(answer: Answering) -> Self {
        Self { answer, ..Self::swift() }
    }

    /// A swift original that reports this as the size.
    pub fn reporting_size(size: &str) -> Self {
        Self { size_header: Some(format!("dt-size: {size}\r\n")), ..Self::swift() }
    }

    /// A swift original with a fault.
    pub fn with_fault(streams: Streams, fault: Fault) -> Self {
        Self { faults: vec![(streams, fault)], ..Self::swift() }
    }

    pub(super) fn fault(&self, id: u8) -> Option<Fault> {
        let hit = |streams: &Streams| *streams == Streams::Every || *streams == Streams::Only(id);
        self.faults.iter().find(|(streams, _)| hit(streams)).map(|(_, fault)| *fault)
    }
}
