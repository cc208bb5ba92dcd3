//! The handlers of requests, one for each kind.

pub(crate) mod download;
pub(crate) mod upgrade;
