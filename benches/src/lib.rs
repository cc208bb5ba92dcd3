//! Shared pieces of the benchmark programs: what is measured, against which peers, over which path, and the tables.
//!
//! A program measures its candidates alternating within one run, after a round that is not counted, and prints
//! Markdown. A candidate that cannot be measured here is printed as skipped, with the reason.

pub mod arguments;
pub mod chart;
pub mod clients;
pub mod cpu;
pub mod files;
pub mod gridftp;
pub mod link;
pub mod memory;
pub mod nginx;
pub mod peers;
pub mod process;
pub mod product;
pub mod results;
pub mod rounds;
pub mod servers;
pub mod table;

use std::error::Error;

/// The error of a benchmark.
pub type Failure = Box<dyn Error + Send + Sync>;

/// The nearest floating-point number; exact below 2^53.
#[expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "there is no other way, and it is for display"
)]
pub fn float(n: u64) -> f64 {
    n as f64
}
