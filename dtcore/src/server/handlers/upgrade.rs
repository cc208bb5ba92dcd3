//! `GET /` with `Upgrade: dt2`: the connection becomes a stream that begins with a hello, for streams through proxies.

use bytes::Bytes;
use http::Response;
use http_body_util::Full;

use crate::server::ServerContext;
use crate::server::refusal::Refusal;
use crate::server::request::{Next, RequestContext};

pub(crate) fn answer(
    context: &ServerContext,
    request_context: &RequestContext,
) -> Result<Response<Full<Bytes>>, Refusal> {
    let permit = context.limits.pending_handshakes.admit(request_context.peer.ip());
    let permit = permit.ok_or_else(|| Refusal::busy("too many connections"))?;
    Ok(request_context.switch(Next::Hello(permit)))
}
