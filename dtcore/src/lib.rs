//! stub
#![allow(dead_code, unused_imports, reason = "the first slice: what uses this follows")]
pub mod integrity;
mod net;
pub mod plan;
mod sender;
mod storage;
mod wire;

pub use sender::{
    InvalidPortRange, PortRange, Server, ServerError, ServerEvent, ServerEvents, ServerOptions, ServerStats,
    StreamFailure, StreamRefusal, TransferFailure, TransferId,
};
