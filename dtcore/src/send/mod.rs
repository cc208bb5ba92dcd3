//! The sending engine: a receiver requests runs of blocks, on any stream of its session.
//!
//! It works on any connection, dialled or accepted, and knows nothing of HTTP, of listeners, or of the receiving engine.

mod body;
mod close;
mod context;
pub(crate) mod digest_cache;
mod digest_queue;
mod event;
mod fair_queue;
mod local;
mod prefetch;
mod run;
mod run_digests;
mod session;
mod stream;
mod stream_table;
#[cfg(test)]
mod tests;
mod write;

pub(crate) use body::BodySender;
pub(crate) use close::refuse;
pub(crate) use context::{Context, Tasks, Timeouts};
pub(crate) use event::SessionEnd;
pub use event::{StreamFailure, StreamRefusal};
pub(crate) use fair_queue::FairQueue;
pub(crate) use prefetch::Prefetcher;
pub(crate) use session::{Session, SessionSpec, Share, StreamGuard};
pub(crate) use stream::{Opening, serve_stream};
pub(crate) use stream_table::Places;
