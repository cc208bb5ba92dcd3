//! What the command lines of `dtserver` and `dtclient` share: times, rates, signals, limits, and errors of one line.

mod duration;
mod open_files;
mod rate;
mod report;
mod signals;

pub use duration::{duration, timeout};
pub use open_files::raise_open_files;
pub use rate::rate;
pub use report::{fail, one_line, reason, say, usage};
pub use signals::Signals;
