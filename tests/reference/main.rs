//! The reference clients against the reference servers: a fault in them must not pass for one of the programs.

mod protocol1;
mod protocol2;
