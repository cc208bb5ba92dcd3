//! Protocol 2: the receiver asks for ranges, over any stream of its session; all streams come to one port.

mod fair;
mod grant;
mod greet;
mod port;
mod range;
mod session;
mod stream;
#[cfg(test)]
mod tests;
mod write;

pub(super) use fair::FairTurns;
pub(super) use grant::grant;
pub(super) use greet::greet;
pub(super) use port::keep;
pub(super) use session::Sessions;
