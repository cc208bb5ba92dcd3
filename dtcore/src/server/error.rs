//! Why a server cannot start.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::backend::fs::RootError;

/// Why a [`Server`](super::Server) cannot start; once it runs, only its shutdown ends it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The folder is missing, is not a folder, or cannot be read.
    #[error("cannot serve {}", path.display())]
    #[non_exhaustive]
    Root {
        /// The folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// This system cannot confine requests to a folder, so none is served.
    #[error("cannot confine requests to {}: {reason}", path.display())]
    #[non_exhaustive]
    Unconfined {
        /// The folder.
        path: PathBuf,
        /// What is missing.
        reason: &'static str,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    #[non_exhaustive]
    Listen {
        /// The address and port.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
}

impl ServerError {
    pub(crate) fn of_root(path: PathBuf, error: RootError) -> Self {
        match error {
            RootError::Unconfined(reason) => Self::Unconfined { path, reason },
            RootError::Io(source) => Self::Root { path, source },
        }
    }
}
