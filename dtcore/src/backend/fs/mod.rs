//! A directory of the file system, served below the kernel's own confinement.

mod file;
mod prefetch;
mod reader;
mod root;

pub(crate) use file::{FileIdentity, SourceFile};
pub(crate) use prefetch::Prefetcher;
pub(crate) use reader::{Flow, read_through};
pub(crate) use root::{OpenError, Root, RootError};
