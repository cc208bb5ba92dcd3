//! What the command lines of `dtserver` and `dtclient` share: times, signals, and errors of one line.

mod duration;
mod report;
mod signals;

pub use duration::{duration, timeout};
pub use report::{fail, one_line, reason, say, usage};
pub use signals::Signals;
