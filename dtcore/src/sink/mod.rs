//! Where received blocks go: a part file with its journal, or a reorder buffer before a pipe.

mod file;
mod journal;
#[cfg_attr(not(test), allow(dead_code, reason = "the API that returns bytes needs it"))]
mod memory;
mod ordered;
mod part_file;
mod sidecar;
mod sparse;
pub(crate) mod store;

#[allow(unused_imports, reason = "runs of blocks need them")]
pub(crate) use file::{BlockLease, CommitError, FileSink, FinishError, Mismatch, Received, Verified};
#[cfg(feature = "fuzzing")]
pub(crate) use journal::Contents as JournalContents;
pub(crate) use journal::{Checked, Outcome, Recovered, SourceIdentity, Watch};
#[allow(unused_imports, reason = "the API that returns bytes needs it")]
pub(crate) use memory::MemoryStore;
pub(crate) use ordered::ReorderBuffer;
pub(crate) use part_file::{BeginError, Clobber, Durability, PartFile, Resume};
#[cfg(test)]
pub(crate) use store::write;
pub use store::{Engine, InvalidEngine};
pub(crate) use store::{FillError, Lease, PwriteStore, Store, open, open_for_blocks};
