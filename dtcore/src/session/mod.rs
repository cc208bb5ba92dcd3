//! The conversation of protocol 2 as pure state machines: bytes in, what is to be done out.

mod sending;

pub(crate) use sending::{Sending, Step};
