//! stub
#![allow(dead_code, unused_imports, reason = "the first slice: what uses this follows")]
pub mod integrity;
mod net;
pub mod plan;
mod storage;
mod wire;
