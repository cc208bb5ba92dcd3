//! Where received blocks go: a part file with its journal, or a reorder buffer before a pipe.

mod file;
mod journal;
mod memory;
mod ordered;
mod output;
mod part_file;
mod sidecar;
mod sparse;
pub(crate) mod store;

pub(crate) use file::{BlockLease, CommitError, FileSink, Received, Verified};
#[cfg(feature = "fuzzing")]
pub(crate) use journal::JournalContents;
pub(crate) use journal::{Checked, Outcome, Recovered, SourceIdentity};
pub(crate) use ordered::ReorderBuffer;
pub(crate) use output::{OrderedWriter, Output, Prepared, Sink};
pub(crate) use part_file::{
    Attributes, BeginError, Clobber, Durability, Proof, Resume, is_sidecar_name, nanoseconds, sidecar_name,
    system_time,
};
pub use store::{Engine, InvalidEngine};
pub(crate) use store::{FillError, Lease, Store};
#[cfg(test)]
pub(crate) use store::{PwriteStore, open, write};
