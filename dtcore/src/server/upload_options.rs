//! Whether and how a server takes files.

use std::path::{Path, PathBuf};

/// How a server takes uploads. By default they go to the folder that is served, and never replace a file.
///
/// ```
/// use dtcore::{ServerOptions, UploadPolicy};
/// let uploads = UploadPolicy::new().directory("/srv/inbox").max_size(10 << 30);
/// let options = ServerOptions::new("/srv/files").uploads(uploads);
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct UploadPolicy {
    directory: Option<PathBuf>,
    overwrite: bool,
    max_size: Option<u64>,
}

impl UploadPolicy {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The folder that files are put in, in place of the one that is served.
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Whether a client that wants to may replace files; by default none may.
    pub fn overwrite(mut self, allowed: bool) -> Self {
        self.overwrite = allowed;
        self
    }

    /// The size in bytes of the largest file that is taken; by default there is no limit.
    pub fn max_size(mut self, bytes: u64) -> Self {
        self.max_size = Some(bytes);
        self
    }

    pub(crate) fn directory_path(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    pub(crate) fn allows_overwriting(&self) -> bool {
        self.overwrite
    }

    pub(crate) fn largest(&self) -> u64 {
        self.max_size.unwrap_or(u64::MAX)
    }
}
