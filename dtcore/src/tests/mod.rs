//! Both engines in one process.

mod pairings;
