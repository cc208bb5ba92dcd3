//! The parts of HTTP that no library parses as the original programs need it.

mod request_line;
mod target;

pub(crate) use request_line::{InvalidRequestLine, MAX_LINE, RequestLine, is_token};
pub(crate) use target::{Marking, Target};
