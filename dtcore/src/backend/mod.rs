//! What is served: a confined directory of the file system.

pub(crate) mod fs;
