//! Protocol 1: a file in as many parts as streams, on a port of its own.

mod slots;
mod stream;
mod transfer;

pub(super) use transfer::Transfer;
