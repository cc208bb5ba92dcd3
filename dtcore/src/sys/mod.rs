//! The one place with unsafe code: a shared memory mapping whose bytes are lent out exclusively.

#![allow(unsafe_code, reason = "the workspace's one opt-out; every block says why it is sound")]

mod ledger;
mod map;

pub(crate) use ledger::Ledger;
pub(crate) use map::{Map, MapWriter};
