//! Files: what is opened, read and known of them.

mod digest_cache;
mod residency;
mod root;
mod source;

pub(crate) use digest_cache::{DigestCache, DigestError};
pub(crate) use residency::Residency;
pub(crate) use root::{OpenError, Root, RootError};
pub(crate) use source::SourceFile;
