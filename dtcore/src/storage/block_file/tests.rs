//! Blocks of all fates.
