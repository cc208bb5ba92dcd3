//! Authorisation: a hook that decides which requests are served.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

/// A request that asks for authorisation.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AuthorizeRequest {
    /// The client.
    pub peer: SocketAddr,
    /// What the client wants to do.
    pub action: Action,
    /// The file, relative to the folder that is served: as it was found there, or as it was requested if it was not found.
    pub path: PathBuf,
}

/// What a client wants to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Action {
    /// Receive a file.
    Download,
    /// Send a file, which is stored under the path.
    Upload,
    /// List a directory.
    List,
}

/// The answer to an [`AuthorizeRequest`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Authorization {
    /// The request is served.
    Allowed,
    /// The request is refused with status 403.
    Forbidden,
    /// The request is refused with status 401.
    Unauthenticated,
}

type Decision = Pin<Box<dyn Future<Output = Authorization> + Send>>;

/// The hook of a server.
#[derive(Clone)]
pub(crate) struct Authorizer(Arc<dyn Fn(AuthorizeRequest) -> Decision + Send + Sync>);

impl Authorizer {
    pub(crate) fn new<F, D>(decide: F) -> Self
    where
        F: Fn(AuthorizeRequest) -> D + Send + Sync + 'static,
        D: Future<Output = Authorization> + Send + 'static,
    {
        Self(Arc::new(move |request| Box::pin(decide(request))))
    }

    pub(crate) async fn authorize(&self, request: AuthorizeRequest) -> Authorization {
        (self.0)(request).await
    }
}

impl fmt::Debug for Authorizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authorizer")
    }
}
