//! The scheduler against simulated streams, in virtual time.

mod faults;
mod model;
mod ordered;
mod rules;
mod simulation;
mod slow;
mod timing;
