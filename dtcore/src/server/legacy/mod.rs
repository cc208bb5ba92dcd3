//! Protocol 1: a file in as many parts as streams, on a port of its own.
//!
//! The rest of the server calls [`create_transfer`] only, so that this folder can be removed with one call.

mod create;
mod run;
mod slots;
mod stream;
mod transfer;

pub(super) use create::create_transfer;
