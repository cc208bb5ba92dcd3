//! The command-line parts that `dtserver` and `dtclient` share: environment variables, numbers, durations, rates, signals,
//! limits, standard output, and one-line errors.

mod arguments;
mod duration;
mod numbers;
mod open_files;
mod rate;
mod report;
mod signals;
mod standard_output;

pub use arguments::{arguments, arguments_of};
pub use duration::{duration, timeout};
pub use numbers::{at_least_one, count, port, switch};
pub use open_files::raise_open_files;
pub use rate::rate;
pub use report::{fail, one_line, reason, say, usage};
pub use signals::Signals;
pub use standard_output::StandardOutput;
