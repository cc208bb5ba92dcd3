//! The library as an embedding program uses it: a client and a server in one process.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod client;
mod outputs;
mod serve;
