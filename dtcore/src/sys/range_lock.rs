//! Exclusive access to ranges of a file: the bookkeeping on which the soundness of `map` rests.
//!
//! Stores without a mapping use it for the same rules.

use std::collections::BTreeMap;

/// Each byte is free, lent to one writer, or filled. Only filled bytes may be read, and they never change again.
#[derive(Debug, Default)]
pub(crate) struct RangeLock<T> {
    lent: RangeSet<T>,
    filled: RangeSet<T>,
}

impl<T: Ord + Copy> RangeLock<T> {
    /// Lends `[start, end)` to a writer; returns `false` if it is empty, or if any byte of it is lent or filled.
    pub(crate) fn lend(&mut self, start: T, end: T) -> bool {
        let free = start < end && !self.lent.overlaps(start, end) && !self.filled.overlaps(start, end);
        if free {
            self.lent.insert(start, end);
        }
        free
    }

    /// Marks the first of the bytes lent to a writer as filled.
    pub(crate) fn fill(&mut self, start: T, end: T) {
        self.lent.remove(start, end);
        self.filled.insert(start, end);
    }

    /// Frees the bytes that a writer did not fill.
    pub(crate) fn take_back(&mut self, start: T, end: T) {
        self.lent.remove(start, end);
    }

    /// Whether every byte of `[start, end)` is filled.
    pub(crate) fn is_filled(&self, start: T, end: T) -> bool {
        start >= end || self.filled.covers(start, end)
    }
}

/// Disjoint half-open ranges by their start; adjacent ranges are merged.
#[derive(Debug, Default)]
struct RangeSet<T>(BTreeMap<T, T>);

impl<T: Ord + Copy> RangeSet<T> {
    fn overlaps(&self, start: T, end: T) -> bool {
        self.0.range(..end).next_back().is_some_and(|(_, last)| *last > start)
    }

    fn covers(&self, start: T, end: T) -> bool {
        self.0.range(..=start).next_back().is_some_and(|(_, last)| *last >= end)
    }

    /// Adds a range that overlaps none, and merges it with adjacent ones.
    fn insert(&mut self, mut start: T, mut end: T) {
        if start >= end {
            return;
        }
        let before = self.0.range(..start).next_back().map(|(first, last)| (*first, *last));
        if let Some((first, _)) = before.filter(|(_, last)| *last == start) {
            self.0.remove(&first);
            start = first;
        }
        if let Some(last) = self.0.remove(&end) {
            end = last;
        }
        self.0.insert(start, end);
    }

    /// Removes `[start, end)`, which must lie within one range.
    fn remove(&mut self, start: T, end: T) {
        if start >= end {
            return;
        }
        let Some((first, last)) = self.0.range(..=start).next_back().map(|(first, last)| (*first, *last))
        else {
            return;
        };
        self.0.remove(&first);
        if first < start {
            self.0.insert(first, start);
        }
        if end < last {
            self.0.insert(end, last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum Byte {
        Free,
        Lent(usize),
        Filled,
    }

    proptest! {
        /// A byte never has two writers, and filled bytes are never lent.
        #[test]
        fn lock_agrees_with_an_array_of_bytes(steps in proptest::collection::vec((0..3_u8, 0..40_usize, 0..12_usize), 1..60)) {
            let mut lock = RangeLock::default();
            let mut model = [Byte::Free; 52];
            let mut writers: Vec<(usize, usize)> = Vec::new();
            for (step, at, n) in steps {
                match step {
                    0 => {
                        let range = &mut model[at..at + n];
                        let free = n > 0 && range.iter().all(|byte| *byte == Byte::Free);
                        prop_assert_eq!(lock.lend(at, at + n), free);
                        if free {
                            range.fill(Byte::Lent(writers.len()));
                            writers.push((at, at + n));
                        }
                    }
                    1 => if let Some(writer) = writers.len().checked_sub(1).map(|last| at % (last + 1)) {
                        let (start, end) = writers[writer];
                        let n = n.min(end - start);
                        lock.fill(start, start + n);
                        model[start..start + n].fill(Byte::Filled);
                        writers[writer].0 += n;
                    },
                    _ => if let Some(writer) = writers.len().checked_sub(1).map(|last| at % (last + 1)) {
                        let (start, end) = writers[writer];
                        lock.take_back(start, end);
                        model[start..end].fill(Byte::Free);
                        writers[writer].0 = end;
                    },
                }
                for start in 0..model.len() {
                    for end in start + 1..=model.len() {
                        let filled = model[start..end].iter().all(|byte| *byte == Byte::Filled);
                        prop_assert_eq!(lock.is_filled(start, end), filled);
                    }
                }
            }
        }
    }
}
