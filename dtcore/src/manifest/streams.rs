//! The number of streams of a transfer, and their identifiers.

use std::fmt;
use std::str::FromStr;

/// The number of streams of a transfer: 1 to 255, because a stream is identified by one byte.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StreamCount(u8);

impl StreamCount {
    /// A single stream.
    pub(crate) const ONE: Self = Self(1);

    /// Validates a count from a user or a peer.
    ///
    /// # Errors
    /// [`InvalidStreamCount`] outside 1 to 255.
    pub fn new(count: u64) -> Result<Self, InvalidStreamCount> {
        match u8::try_from(count) {
            Ok(count) if count > 0 => Ok(Self(count)),
            _ => Err(InvalidStreamCount),
        }
    }

    /// The count as a number.
    pub fn value(self) -> u8 {
        self.0
    }

    /// The stream with that identifier, if the transfer has it.
    pub(crate) fn stream(self, id: u8) -> Option<StreamId> {
        (id < self.0).then_some(StreamId(id))
    }

    /// All streams of the transfer, in order.
    pub(crate) fn ids(self) -> impl DoubleEndedIterator<Item = StreamId> + ExactSizeIterator {
        (0..self.0).map(StreamId)
    }
}

/// Eight streams: enough for long paths, and no burden on short ones.
impl Default for StreamCount {
    fn default() -> Self {
        Self(8)
    }
}

impl FromStr for StreamCount {
    type Err = InvalidStreamCount;

    fn from_str(text: &str) -> Result<Self, InvalidStreamCount> {
        text.parse().map_err(|_| InvalidStreamCount).and_then(Self::new)
    }
}

impl fmt::Display for StreamCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A stream count outside 1 to 255.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the number of streams must be a whole number from 1 to 255")]
pub struct InvalidStreamCount;

/// One stream of a transfer, counted from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StreamId(u8);

impl StreamId {
    /// The identifier on the wire.
    pub fn byte(self) -> u8 {
        self.0
    }

    /// The index of the stream in a list of all streams.
    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn count_is_a_whole_number_from_1_to_255() {
        for (text, expected) in [("1", Some(1)), ("8", Some(8)), ("255", Some(255))] {
            assert_eq!(text.parse().ok().map(StreamCount::value), expected, "{text}");
        }
        for text in ["0", "256", "-3", "2.5", "", "eight", "18446744073709551616"] {
            assert_eq!(text.parse::<StreamCount>(), Err(InvalidStreamCount), "{text}");
        }
    }

    #[test]
    fn ids_are_below_the_count() {
        let count = StreamCount::new(3).unwrap();
        assert_eq!(count.stream(2).map(StreamId::byte), Some(2));
        assert_eq!(count.stream(3), None);
        assert_eq!(count.ids().map(StreamId::byte).collect::<Vec<_>>(), [0, 1, 2]);
    }
}
