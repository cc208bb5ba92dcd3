//! The local side of a transfer: where received bytes go, and where sent ones come from.

mod digest_cache;
mod mapped;
mod part_file;
mod positioned;
mod residency;
mod root;
mod source;
mod space;
mod store;

pub(crate) use digest_cache::{DigestCache, DigestError};
pub(crate) use part_file::{Clobber, Durability, PartFile};
pub(crate) use residency::Residency;
pub(crate) use root::{OpenError, Root, RootError};
pub(crate) use source::SourceFile;
pub use store::{Engine, InvalidEngine};
pub(crate) use store::{FillError, GrowingWriter, Store, Writer, append, open};
