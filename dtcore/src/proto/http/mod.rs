//! The parts of HTTP that no library reads the way the original programs need them.

mod request_line;
mod target;

pub(crate) use request_line::{InvalidRequestLine, MAX_LINE, RequestLine, is_token};
pub(crate) use target::{Marking, Target};
