//! stub
#![allow(dead_code, unused_imports, reason = "the first slice: what uses this follows")]
pub mod integrity;
pub mod plan;
mod wire;
