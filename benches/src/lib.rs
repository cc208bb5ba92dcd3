//! Shared pieces of the benchmark programs: what is measured, against whom, over which path, and the tables.
//!
//! A program measures its candidates alternating within one run, after a round that is not counted, and prints
//! Markdown. A candidate that cannot be measured here is named with the reason, never left out in silence.

pub mod arguments;
pub mod clients;
pub mod files;
pub mod link;
pub mod memory;
pub mod nginx;
pub mod peers;
pub mod process;
pub mod product;
pub mod rounds;
pub mod table;

use std::error::Error;

/// What a benchmark may fail with.
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
