//! Which prefix of the file is complete while the streams of a static split fill it from many ends.

use super::{ByteRange, StaticSplit, StreamId};

/// Follows the fill of every part and tells what has become contiguous with the file's start.
///
/// A serial digest can follow the frontier; it must never read beyond it.
#[derive(Debug)]
pub(crate) struct Frontier {
    split: StaticSplit,
    filled: Vec<u64>,
    /// The stream whose part holds the frontier.
    current: usize,
}

impl Frontier {
    pub(crate) fn new(split: StaticSplit) -> Self {
        Self { split, filled: vec![0; usize::from(split.streams().value())], current: 0 }
    }

    /// Records `n` more bytes of `stream` and returns the bytes that thereby joined the complete prefix.
    ///
    /// Bytes beyond the stream's part are not counted: the caller has bounded them already.
    pub(crate) fn advance(&mut self, stream: StreamId, n: u64) -> ByteRange {
        let range = self.split.range(stream);
        let before = self.position();
        if let Some(filled) = self.filled.get_mut(stream.index()) {
            *filled = filled.saturating_add(n).min(range.len());
        }
        ByteRange::new(before, self.follow())
    }

    /// Moves over every part that is full and returns the end of the complete prefix.
    fn follow(&mut self) -> u64 {
        let ids = self.split.streams().ids();
        for (id, filled) in ids.zip(&self.filled).skip(self.current) {
            self.current = id.index();
            if *filled < self.split.range(id).len() {
                break;
            }
        }
        self.position()
    }

    /// The end of the complete prefix.
    fn position(&self) -> u64 {
        let mut ids = self.split.streams().ids();
        let filled = self.filled.get(self.current).copied().unwrap_or(0);
        ids.nth(self.current).map_or(self.split.size(), |id| self.split.range(id).start() + filled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::StreamCount;
    use proptest::prelude::*;

    #[test]
    fn only_the_lowest_incomplete_part_moves_the_frontier() {
        let streams = StreamCount::new(3).unwrap();
        let mut frontier = Frontier::new(StaticSplit::new(8, streams)); // parts of 3, 3 and 2 bytes
        let mut advance = |id, n| {
            let joined = frontier.advance(streams.stream(id).unwrap(), n);
            (joined.start(), joined.end())
        };
        assert_eq!(advance(1, 3), (0, 0));
        assert_eq!(advance(0, 2), (0, 2));
        assert_eq!(advance(2, 1), (2, 2));
        assert_eq!(advance(0, 1), (2, 7));
        assert_eq!(advance(2, 1), (7, 8));
    }

    proptest! {
        #[test]
        fn every_byte_joins_exactly_once(size in 0..500_u64, streams in 1..=20_u64, order in any::<u64>()) {
            let streams = StreamCount::new(streams).unwrap();
            let split = StaticSplit::new(size, streams);
            let mut left: Vec<u64> = streams.ids().map(|id| split.range(id).len()).collect();
            let mut frontier = Frontier::new(split);
            let (mut joined, mut random) = (0, order);
            while left.iter().any(|n| *n > 0) {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let id = streams.stream(u8::try_from((random >> 33) % u64::from(streams.value())).unwrap()).unwrap();
                let n = left[id.index()].min((random >> 20) % 7 + 1);
                left[id.index()] -= n;
                let range = frontier.advance(id, n);
                prop_assert_eq!(range.start(), joined);
                joined = range.end();
                let complete = streams.ids().find(|id| left[id.index()] > 0);
                let expected = complete.map_or(size, |id| split.range(id).end() - left[id.index()]);
                prop_assert_eq!(joined, expected);
            }
            prop_assert_eq!(joined, size);
        }
    }
}
