//! Which handler answers a request.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::body::Incoming;

use super::ServerContext;
use super::list::{ChannelBody, wants_listing};
use super::refusal::Refusal;
use super::request::{Next, RequestContext, json, marking, wants_stream};
use super::{download, list, upload};
use crate::proto::{Marking, v1};

/// The body of an answer: complete, or made as it is sent.
pub(crate) type AnswerBody = Either<Full<Bytes>, ChannelBody>;

/// Answers a request, whatever it is.
pub(crate) async fn answer(
    context: &Arc<ServerContext>,
    request_context: &RequestContext,
    request: Request<Incoming>,
) -> Response<AnswerBody> {
    let marking = marking(&request);
    let answer = match *request.method() {
        Method::GET if wants_listing(&request) => {
            return match list::answer(context, request_context, &request).await {
                Ok(listing) => listing.map(Either::Right),
                Err(refusal) => refused(context, request_context, marking, &refusal),
            };
        }
        Method::POST => download::answer(context, request_context, request).await,
        Method::PUT if wants_stream(&request) || context.options.uploads.is_some() => {
            upload::answer(context, request_context, request).await
        }
        Method::GET if request_context.target == b"/" && wants_stream(&request) => {
            // The connection becomes a stream that begins with a hello, for streams through proxies.
            let permit = context.limits.pending_handshakes.admit(request_context.peer.ip());
            let permit = permit.ok_or_else(|| Refusal::busy("too many connections"));
            permit.map(|permit| request_context.switch(Next::Hello(permit)))
        }
        _ => Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, "only POST is served")),
    };
    match answer {
        Ok(answer) => answer.map(Either::Left),
        Err(refusal) => refused(context, request_context, marking, &refusal),
    }
}

fn refused(
    context: &ServerContext,
    request_context: &RequestContext,
    marking: Marking,
    refusal: &Refusal,
) -> Response<AnswerBody> {
    context.emit_refused(request_context.peer, refusal, Some(&request_context.name_as(marking)));
    json(refusal.status, v1::encode_refusal(&refusal.reason)).map(Either::Left)
}
