//! A set of blocks, as one bit for each.

use super::{BlockId, Manifest};
use crate::num::to_usize;

/// A set of blocks of one manifest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct BlockSet {
    words: Vec<u64>,
    n_blocks: u32,
    len: u32,
}

impl BlockSet {
    /// The empty set over the blocks of `manifest`.
    pub(crate) fn new(manifest: &Manifest) -> Self {
        let n_blocks = manifest.n_blocks();
        let n_words = to_usize(u64::from(n_blocks.div_ceil(u64::BITS)));
        Self { words: vec![0; n_words], n_blocks, len: 0 }
    }

    /// How many blocks are in the set.
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// Whether every block of the manifest is in the set.
    pub(crate) fn is_full(&self) -> bool {
        self.len == self.n_blocks
    }

    /// Whether `block` is in the set.
    pub(crate) fn contains(&self, block: BlockId) -> bool {
        let (word, bit) = place(block);
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Adds `block`; returns whether it was added. A block that the manifest lacks is never added.
    pub(crate) fn insert(&mut self, block: BlockId) -> bool {
        let (word, bit) = place(block);
        let Some(word) = self.words.get_mut(word).filter(|word| block.0 < self.n_blocks && **word & bit == 0)
        else {
            return false;
        };
        *word |= bit;
        self.len += 1;
        true
    }

    /// Removes `block`; returns whether it was in the set.
    pub(crate) fn remove(&mut self, block: BlockId) -> bool {
        let (word, bit) = place(block);
        let Some(word) = self.words.get_mut(word).filter(|word| **word & bit != 0) else { return false };
        *word &= !bit;
        self.len -= 1;
        true
    }

    /// The first block from number `from` on that is not in the set.
    pub(crate) fn first_missing(&self, from: u32) -> Option<BlockId> {
        let mut at = from;
        while at < self.n_blocks {
            let (word, _) = place(BlockId(at));
            let bits = self.words.get(word).copied().unwrap_or(0) >> (at % u64::BITS);
            let ones = bits.trailing_ones();
            if ones < u64::BITS - at % u64::BITS {
                at += ones;
                return (at < self.n_blocks).then_some(BlockId(at));
            }
            at = (at / u64::BITS + 1) * u64::BITS;
        }
        None
    }
}

/// The index of the block's word, and its bit in it.
fn place(block: BlockId) -> (usize, u64) {
    (to_usize(u64::from(block.0 / u64::BITS)), 1 << (block.0 % u64::BITS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::BlockSize;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn set_agrees_with_a_model(n in 1..200_u64, steps in proptest::collection::vec((any::<bool>(), 0..200_u64), 0..300)) {
            let manifest = Manifest::new(n << 14, BlockSize::new(1 << 14).unwrap()).unwrap();
            let (mut set, mut model) = (BlockSet::new(&manifest), BTreeSet::new());
            for (insert, index) in steps {
                let Some(block) = manifest.block(index) else { continue };
                if insert {
                    prop_assert_eq!(set.insert(block), model.insert(block));
                } else {
                    prop_assert_eq!(set.remove(block), model.remove(&block));
                }
            }
            prop_assert_eq!(to_usize(u64::from(set.len())), model.len());
            prop_assert_eq!(set.is_full(), manifest.blocks().all(|block| model.contains(&block)));
            for from in 0..manifest.n_blocks() + 2 {
                let missing = manifest.blocks().find(|block| block.value() >= from && !model.contains(block));
                prop_assert_eq!(set.first_missing(from), missing);
            }
        }
    }
}
