//! Finds and opens the file that a request names, if the client may have it.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use http::StatusCode;
use tokio::time::timeout;

use super::ServerContext;
use super::auth::{Action, Authorization, AuthorizeRequest};
use super::refusal::Refusal;
use crate::backend::{Backend, Object};

/// Opens the first of `names` that exists, and asks whether the client may have it. Returns the file and its name below the
/// root, without empty parts and dots.
pub(crate) async fn open(
    context: &ServerContext,
    peer: SocketAddr,
    names: Arc<[Vec<u8>]>,
) -> Result<(Arc<dyn Object>, PathBuf), Refusal> {
    let root = Arc::clone(&context.root);
    let candidates = Arc::clone(&names);
    // A cold disk may need its time for every part of a path.
    let opening = tokio::task::spawn_blocking(move || root.open(&names));
    let opened = opening.await.map_err(|_| Refusal::busy("the server is shutting down"))?;
    let opened = opened.map(|(source, name)| (source, normalized(&name)));
    if context.options.authorizer.is_some() {
        // A client that may not have a file does not learn whether it exists, under any name that the request can mean.
        let paths = opened.as_ref().map_or_else(
            |_| candidates.iter().map(|name| path_below(name)).collect(),
            |(_, path)| vec![path.clone()],
        );
        for path in paths {
            authorize(context, AuthorizeRequest { peer, action: Action::Download, path }).await?;
        }
    }
    let (file, path) = opened?;
    Ok((Arc::new(file), path))
}

/// Asks the hook, if there is one, whether a request is served.
pub(crate) async fn authorize(context: &ServerContext, request: AuthorizeRequest) -> Result<(), Refusal> {
    let Some(authorizer) = &context.options.authorizer else { return Ok(()) };
    let decision = timeout(context.options.request_timeout, authorizer.authorize(request)).await;
    match decision.map_err(|_| Refusal::busy("the authorization timed out"))? {
        Authorization::Allowed => Ok(()),
        Authorization::Forbidden => Err(Refusal::new(StatusCode::FORBIDDEN, "access denied")),
        Authorization::Unauthenticated => {
            Err(Refusal::new(StatusCode::UNAUTHORIZED, "authentication required"))
        }
    }
}

/// The path of `name` relative to the root, as the hook for authorisation and observers see it.
pub(super) fn path_below(name: &[u8]) -> PathBuf {
    normalized(Path::new(OsStr::from_bytes(name)))
}

/// A name relative to the root, in the one spelling that a comparison of paths expects.
fn normalized(name: &Path) -> PathBuf {
    name.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_spelling() {
        for (name, expected) in [
            ("f", "f"),
            ("//a//b/", "a/b"),
            ("./a/./b", "a/b"),
            ("/", ""),
            ("../f", "../f"),
            (".a/..b", ".a/..b"),
        ] {
            assert_eq!(normalized(Path::new(name)), Path::new(expected), "{name}");
        }
    }
}
