//! A half-open range of bytes of a file.

use std::fmt;

/// The bytes from `start` (included) to `end` (excluded).
///
/// An empty range has `start == end`; `start` is never larger than `end`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct ByteRange {
    start: u64,
    end: u64,
}

impl ByteRange {
    /// The range `[start, end)`; the empty range at `start` if `end` is before it.
    pub(crate) const fn new(start: u64, end: u64) -> Self {
        Self { start, end: if end < start { start } else { end } }
    }

    /// The range of `len` bytes from `start`, truncated at the largest offset.
    pub(crate) fn with_len(start: u64, len: u64) -> Self {
        Self { start, end: start.saturating_add(len) }
    }

    /// The offset of the first byte.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// The offset after the last byte.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// The number of bytes in the range.
    pub(crate) fn len(&self) -> u64 {
        self.end - self.start
    }

    /// Whether the range has no bytes.
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }
}

impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}
