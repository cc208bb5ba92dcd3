//! `GET <name>` that accepts a listing: the entries of a directory, one line each.

use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use hyper::body::{Body, Frame};
use tokio::sync::{mpsc, oneshot};

use super::ServerContext;
use super::auth::{Action, AuthorizeRequest};
use super::open::{authorize, path_below};
use super::refusal::Refusal;
use super::request::RequestContext;
use crate::backend::OpenError;
use crate::backend::fs::{Root, WalkItem, WalkOptions};
use crate::failure::reason;
use crate::proto::{LIST_HEADER, LISTING, ListLine};
use crate::sink::is_sidecar_name;

/// How many bytes of lines are sent at once.
const PIECE: usize = 32 << 10;

/// How many such pieces wait for a client that reads slowly.
const QUEUED: usize = 4;

/// A body whose pieces are made by another thread.
#[derive(Debug)]
pub(crate) struct ChannelBody(mpsc::Receiver<Bytes>);

impl Body for ChannelBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

/// Whether a request asks for a listing.
pub(crate) fn wants_listing<B>(request: &Request<B>) -> bool {
    let accepted = request.headers().get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    accepted
        .flat_map(|value| value.split(','))
        .any(|kind| kind.split(';').next().map(str::trim) == Some(LISTING))
}

pub(crate) async fn answer<B>(
    context: &Arc<ServerContext>,
    request_context: &RequestContext,
    request: &Request<B>,
) -> Result<Response<ChannelBody>, Refusal> {
    if !context.options.listing {
        return Err(Refusal::new(StatusCode::FORBIDDEN, "listing is not permitted"));
    }
    let name = request_context.name(request);
    let wanted = request.headers().get(LIST_HEADER).map(HeaderValue::as_bytes).unwrap_or_default();
    let wanted = wanted.to_ascii_lowercase();
    let wants = |word: &[u8]| wanted.split(|byte| *byte == b',').any(|part| part.trim_ascii() == word);
    let (recursive, hidden) = (wants(b"recursive"), wants(b"hidden"));
    let path = path_below(&name);
    authorize(context, AuthorizeRequest { peer: request_context.peer, action: Action::List, path }).await?;
    let permit = context.admit(request_context.peer.ip())?;
    let (sender, pieces) = mpsc::channel(QUEUED);
    let (opened, is_open) = oneshot::channel();
    let root = Arc::clone(&context.root);
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let is_hidden = move |name: &OsStr| !hidden && is_hidden(name.as_bytes());
        list(&root, &name, &WalkOptions { recursive, is_hidden: &is_hidden }, &sender, opened);
    });
    let opened = is_open.await.map_err(|_| Refusal::busy("the server is shutting down"))?;
    opened?;
    let mut response = Response::new(ChannelBody(pieces));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(LISTING));
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    Ok(response)
}

/// Lists into `pieces`, after reporting to `opened` whether that is possible.
fn list(
    root: &Root,
    name: &[u8],
    options: &WalkOptions<'_>,
    pieces: &mpsc::Sender<Bytes>,
    opened: oneshot::Sender<Result<(), OpenError>>,
) {
    let walk = match root.walk(name, options) {
        Ok(walk) => walk,
        Err(error) => return drop(opened.send(Err(error))),
    };
    // An error only says that the client has gone.
    let _ = opened.send(Ok(()));
    let (mut piece, mut n_entries) = (Vec::with_capacity(PIECE), 0);
    let mut is_wanted = true;
    walk.run(options, &mut |found| {
        let line = match found {
            WalkItem::Entry(entry) => {
                n_entries += 1;
                ListLine::Entry(entry)
            }
            WalkItem::Unreadable(path, error) => {
                ListLine::Unreadable(path.as_os_str().as_bytes().to_vec(), reason(&error))
            }
        };
        piece.extend(line.encode());
        if piece.len() >= PIECE {
            let full = std::mem::replace(&mut piece, Vec::with_capacity(PIECE));
            is_wanted = pieces.blocking_send(full.into()).is_ok();
        }
        if is_wanted { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    if is_wanted {
        piece.extend(ListLine::End(n_entries).encode());
        let _ = pieces.blocking_send(piece.into());
    }
}

/// Whether a name is listed only if hidden ones are.
fn is_hidden(name: &[u8]) -> bool {
    name.starts_with(b".") || is_sidecar_name(name)
}
