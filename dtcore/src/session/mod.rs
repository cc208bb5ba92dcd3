//! The conversation on one stream of protocol 2, as pure state: what was asked, and what may therefore come.

mod receiving;
mod sending;

pub(crate) use receiving::{BrokenProtocol, Coming, Receiving};
pub(crate) use sending::{Sending, Step};
