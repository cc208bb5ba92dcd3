//! The static split of protocol 1: every stream carries one contiguous part of the file.

use super::{ByteRange, StreamCount, StreamId};

/// A file of known size, split over the streams of protocol 1.
///
/// With `part = size / streams + 1`, stream `i` carries the bytes `[i * part, (i + 1) * part)`, cut off at the
/// end of the file. The parts tile the file; those after its end are empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct StaticSplit {
    size: u64,
    streams: StreamCount,
}

impl StaticSplit {
    /// The split of `size` bytes over `streams`.
    pub(crate) fn new(size: u64, streams: StreamCount) -> Self {
        Self { size, streams }
    }

    /// The split whose parts have exactly these lengths: a receiver that does not know the size learns it from them when all
    /// streams have ended. One or two missing bytes can pass for a smaller file; only the digest detects that.
    ///
    /// # Errors
    /// [`InconsistentLengths`] if no file splits into such parts: some stream ended early.
    pub(crate) fn from_lengths(lengths: &[u64]) -> Result<Self, InconsistentLengths> {
        let streams = u64::try_from(lengths.len())
            .ok()
            .and_then(|n| StreamCount::new(n).ok())
            .ok_or(InconsistentLengths { stream: 0, received: 0 })?;
        let size = lengths
            .iter()
            .try_fold(0_u64, |sum, length| sum.checked_add(*length))
            .ok_or(InconsistentLengths { stream: 0, received: u64::MAX })?;
        let split = Self::new(size, streams);
        // A stream that ended early makes the parts of the smaller sum shorter too, so the first difference may be at a
        // complete stream; the first stream that is shorter than the longest is the one to name.
        if streams.ids().zip(lengths).all(|(id, length)| split.range(id).len() == *length) {
            return Ok(split);
        }
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let short = streams.ids().zip(lengths).find(|(_, length)| **length < longest);
        let (stream, received) = short.map_or((0, longest), |(id, length)| (id.byte(), *length));
        Err(InconsistentLengths { stream, received })
    }

    /// The file's size in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// How many streams carry the file.
    pub(crate) fn streams(&self) -> StreamCount {
        self.streams
    }

    /// The bytes that `stream` carries.
    pub(crate) fn range(&self, stream: StreamId) -> ByteRange {
        let part = u128::from(self.size / u64::from(self.streams.value())) + 1;
        let start = part * u128::from(stream.byte());
        let bound = |offset: u128| u64::try_from(offset).unwrap_or(u64::MAX).min(self.size);
        ByteRange::new(bound(start), bound(start + part))
    }
}

/// The lengths of ended streams that no file splits into.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("stream {stream} ended early, after {received} bytes")]
pub(crate) struct InconsistentLengths {
    /// The first stream that is too short.
    pub(crate) stream: u8,
    /// How many bytes arrived on it.
    pub(crate) received: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lengths(size: u64, streams: u64) -> Vec<u64> {
        let split = StaticSplit::new(size, StreamCount::new(streams).unwrap());
        split.streams().ids().map(|id| split.range(id).len()).collect()
    }

    #[test]
    fn parts_are_those_of_the_original() {
        assert_eq!(lengths(7, 8), [1, 1, 1, 1, 1, 1, 1, 0]);
        assert_eq!(lengths(8, 8), [2, 2, 2, 2, 0, 0, 0, 0]);
        assert_eq!(lengths(1, 8), [1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(lengths(0, 3), [0, 0, 0]);
        assert_eq!(
            lengths(1 << 20, 8),
            [131_073, 131_073, 131_073, 131_073, 131_073, 131_073, 131_073, 131_065]
        );
    }

    #[test]
    fn inconsistent_lengths_name_the_short_stream() {
        let error = StaticSplit::from_lengths(&[131_073, 131_073, 99, 131_073]).unwrap_err();
        assert_eq!(error, InconsistentLengths { stream: 2, received: 99 });
        assert!(StaticSplit::from_lengths(&[]).is_err());
        assert!(StaticSplit::from_lengths(&[u64::MAX, u64::MAX]).is_err());
        assert!(StaticSplit::from_lengths(&[0; 256]).is_err());
    }

    fn sizes() -> impl Strategy<Value = u64> {
        prop_oneof![0..2000_u64, any::<u64>(), (u64::MAX - 600)..=u64::MAX]
    }

    proptest! {
        #[test]
        fn parts_tile_the_file(size in sizes(), streams in 1..=255_u64) {
            let split = StaticSplit::new(size, StreamCount::new(streams).unwrap());
            let mut next = 0;
            for id in split.streams().ids() {
                let range = split.range(id);
                prop_assert_eq!(range.start(), next);
                next = range.end();
            }
            prop_assert_eq!(next, size);
        }

        #[test]
        fn lengths_determine_the_split(size in sizes(), streams in 1..=255_u64) {
            let split = StaticSplit::from_lengths(&lengths(size, streams)).unwrap();
            prop_assert_eq!(split.size(), size);
        }

        #[test]
        fn three_missing_bytes_in_the_middle_are_detected(
            size in 1000..u64::MAX, streams in 2..=20_u64, which: u8, missing in 3..=50_u64,
        ) {
            let mut lengths = lengths(size, streams);
            // The last part may be shorter anyway, so the bytes are taken from one before it.
            let which = usize::from(which) % (lengths.len() - 1);
            lengths[which] -= missing;
            prop_assert!(StaticSplit::from_lengths(&lengths).is_err());
        }
    }
}
