//! stub
#![allow(dead_code, unused_imports, reason = "the first slice: what uses this follows")]
pub mod error;
pub use storage::{Engine, InvalidEngine};
pub mod integrity;
pub mod plan;
mod storage;
mod sys;
mod wire;
