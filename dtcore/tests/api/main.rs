//! The library as an embedding program uses it: a client and a server in one process.

mod client;
mod outputs;
mod serve;
