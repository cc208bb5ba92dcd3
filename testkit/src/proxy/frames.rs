//! Finds the file's bytes among the frames of a sender of protocol 2.

use crate::frame::{FRAME, TRAILER, WHOLE_DIGESTS};

/// Where in the frames a stream is.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    header: Vec<u8>,
    state: State,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Header,
    Data {
        offset: u64,
        left: u64,
    },
    Other {
        left: u64,
    },
}

impl Tracker {
    /// Follows `bytes`, the next ones, and flips a bit of each byte of the file that is in `offsets`.
    pub(super) fn flip(&mut self, bytes: &mut [u8], offsets: &[u64]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let n = match self.state {
                State::Header => FRAME - self.header.len(),
                State::Data { left, .. } | State::Other { left } => {
                    usize::try_from(left).unwrap_or(usize::MAX)
                }
            };
            let (now, later) = rest.split_at_mut(n.min(rest.len()));
            rest = later;
            self.state = self.after(now, offsets);
        }
    }

    fn after(&mut self, bytes: &mut [u8], offsets: &[u64]) -> State {
        let n = u64::try_from(bytes.len()).expect("it fits");
        match self.state {
            State::Header => {
                self.header.extend_from_slice(bytes);
                if self.header.len() < FRAME {
                    return State::Header;
                }
                let header = std::mem::take(&mut self.header);
                let number =
                    |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
                match header[0] {
                    0x81 => State::Data { offset: number(8), left: number(16) },
                    0x82 => other(WHOLE_DIGESTS),
                    0x8f => other(usize::try_from(number(16)).expect("a short reason")),
                    _ => State::Header,
                }
            }
            State::Data { offset, left } => {
                for flipped in offsets.iter().filter_map(|at| at.checked_sub(offset)) {
                    if let Some(byte) = usize::try_from(flipped).ok().and_then(|at| bytes.get_mut(at)) {
                        *byte ^= 0x10;
                    }
                }
                if left > n { State::Data { offset: offset + n, left: left - n } } else { other(TRAILER) }
            }
            State::Other { left } if left > n => State::Other { left: left - n },
            State::Other { .. } => State::Header,
        }
    }
}

fn other(len: usize) -> State {
    match u64::try_from(len) {
        Ok(left @ 1..) => State::Other { left },
        Ok(0) | Err(_) => State::Header,
    }
}
