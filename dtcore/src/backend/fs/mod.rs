//! A directory of the file system, served under the kernel's own confinement.

mod file;
mod place;
mod root;
mod small;
mod walk;

pub(crate) use file::{SourceFile, file_nanoseconds};
pub(crate) use place::FilePlace;
pub(crate) use root::{Root, RootError};
pub(crate) use small::{NotRead, SmallFile, SmallFiles};
pub(crate) use walk::{WalkItem, WalkOptions, open_below};
