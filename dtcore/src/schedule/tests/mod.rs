//! The scheduler against simulated streams, in virtual time.

mod block_table;
mod faults;
mod model;
mod ordered;
mod rules;
mod runs;
mod simulation;
mod slow;
mod timing;
