//! Reading a range piece by piece: the one loop for hashing, read-ahead and reading back.

use std::io;

use crate::manifest::ByteRange;
use crate::num::{to_u64, to_usize};

/// How much is read at once.
///
/// 64 to 256 KiB measured alike for reading and hashing: a piece stays in a core's own cache until it is hashed. For a cold
/// disk the kernel's read-ahead makes long runs of it.
pub(crate) const PIECE: usize = 128 << 10;

/// Reads a range in order with `read_at(buffer, offset)`, which may read less than the buffer holds.
#[derive(Debug)]
pub(crate) struct PieceReader<R> {
    read_at: R,
    rest: ByteRange,
}

impl<R: FnMut(&mut [u8], u64) -> io::Result<usize>> PieceReader<R> {
    pub(crate) fn new(range: ByteRange, read_at: R) -> Self {
        Self { read_at, rest: range }
    }

    /// A buffer for the pieces, no longer than the range.
    pub(crate) fn buffer(&self) -> Vec<u8> {
        vec![0; to_usize(self.rest.len()).min(PIECE)]
    }

    /// Reads the next piece into `buffer`; it is empty at the end of the range or of the file.
    ///
    /// Interrupted calls are repeated.
    pub(crate) fn next<'b>(&mut self, buffer: &'b mut [u8]) -> io::Result<&'b [u8]> {
        let len = to_usize(self.rest.len()).min(buffer.len());
        let space = buffer.get_mut(..len).unwrap_or_default();
        let n = loop {
            match (self.read_at)(space, self.rest.start()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        let piece = space.get(..n).unwrap_or_default();
        self.rest = ByteRange::new(self.rest.start() + to_u64(piece.len()), self.rest.end());
        Ok(piece)
    }

    /// The part of the range that has not been read yet.
    pub(crate) fn rest(&self) -> ByteRange {
        self.rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_interrupted_reads_are_continued() {
        let content: Vec<u8> = (0..100).collect();
        let mut n_calls = 0;
        let read_at = |space: &mut [u8], offset: u64| {
            n_calls += 1;
            if n_calls % 2 == 0 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let from = &content[usize::try_from(offset).unwrap()..];
            let n = from.len().min(space.len()).min(7);
            space[..n].copy_from_slice(&from[..n]);
            Ok(n)
        };
        let mut reader = PieceReader::new(ByteRange::new(5, 200), read_at);
        let mut buffer = reader.buffer();
        let mut seen = Vec::new();
        while let piece @ [_, ..] = reader.next(&mut buffer).unwrap() {
            seen.extend_from_slice(piece);
        }
        assert_eq!(seen, content[5..]);
        assert_eq!(reader.rest(), ByteRange::new(100, 200));
    }

    #[test]
    fn nothing_beyond_the_range_is_read() {
        let read_at = |space: &mut [u8], _| Ok(space.len());
        let mut reader = PieceReader::new(ByteRange::new(0, 10), read_at);
        let mut buffer = [0; 8];
        assert_eq!(reader.next(&mut buffer).unwrap().len(), 8);
        assert_eq!(reader.next(&mut buffer).unwrap().len(), 2);
        assert!(reader.next(&mut buffer).unwrap().is_empty());
    }
}
