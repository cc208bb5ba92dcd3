//! The local side of a transfer: where received bytes go, and where sent ones come from.

mod beside;
mod block_file;
mod buffers;
mod digest_cache;
mod engine;
mod growing;
mod holes;
mod journal;
mod mapped;
mod part_file;
mod positioned;
mod read_through;
mod residency;
mod root;
mod source;
mod space;
mod store;
mod window;

pub(crate) use block_file::{BlockFile, CommitError, Leased, Unverified, Verified};
pub(crate) use digest_cache::{DigestCache, DigestError, SETTLING};
pub use engine::{Engine, InvalidEngine};
pub(crate) use engine::{open, open_for_blocks};
pub(crate) use growing::{GrowingWriter, append};
#[cfg(feature = "fuzzing")]
pub(crate) use journal::Contents as JournalContents;
pub(crate) use journal::{Checked, Origin, Outcome, Recovered, Watch};
pub(crate) use part_file::{BeginError, Clobber, Durability, PartFile, Resume};
pub(crate) use residency::Residency;
pub(crate) use root::{OpenError, Root, RootError};
pub(crate) use source::{FileIdentity, SourceFile};
pub(crate) use store::{FillError, Store, Writer};
pub(crate) use window::Window;
