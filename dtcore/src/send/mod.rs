//! The responder engine: a receiver asks for ranges, over any stream of its session.

mod body;
mod create_session;
pub(crate) mod digest_cache;
mod fair_queue;
mod handshake;
mod port;
mod prefetch;
mod range;
mod session;
mod stream;
#[cfg(test)]
mod tests;
mod write;

pub(crate) use body::BodySender;
pub(crate) use create_session::grant;
pub(crate) use fair_queue::FairQueue;
pub(crate) use handshake::handshake;
pub(crate) use port::keep;
pub(crate) use prefetch::Prefetcher;
pub(crate) use session::Sessions;
