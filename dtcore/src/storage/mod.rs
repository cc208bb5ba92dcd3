//! The local side of a transfer: where received bytes go, and where sent ones come from.

mod mapped;
mod part_file;
mod positioned;
mod space;
mod store;

pub(crate) use part_file::{Clobber, Durability, PartFile};
pub use store::{Engine, InvalidEngine};
pub(crate) use store::{FillError, GrowingWriter, Store, Writer, append, open};
