//! The local side of a transfer: where received bytes go, and where sent ones come from.

mod digest_cache;
mod engine;
mod growing;
mod mapped;
mod part_file;
mod positioned;
mod read_through;
mod residency;
mod root;
mod source;
mod space;
mod store;

pub(crate) use digest_cache::{DigestCache, DigestError};
pub(crate) use engine::open;
pub use engine::{Engine, InvalidEngine};
pub(crate) use growing::{GrowingWriter, append};
pub(crate) use part_file::{Clobber, Durability, PartFile};
pub(crate) use residency::Residency;
pub(crate) use root::{OpenError, Root, RootError};
pub(crate) use source::{FileIdentity, SourceFile};
pub(crate) use store::{FillError, Store, Writer};
