//! The body of a request.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use tokio::time::timeout;

use super::refusal::Refusal;
use crate::num::to_u64;

/// Reads the body, at most `limit` bytes, within `deadline`.
pub(crate) async fn read_body(
    request: Request<Incoming>,
    limit: usize,
    deadline: Duration,
) -> Result<Bytes, Refusal> {
    let too_large = || Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is over {limit} bytes"));
    let headers = request.headers();
    if !headers.contains_key(CONTENT_LENGTH) && !headers.contains_key(TRANSFER_ENCODING) {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "the request has no content-length"));
    }
    let body = request.into_body();
    if body.size_hint().lower() > to_u64(limit) {
        return Err(too_large());
    }
    let body = timeout(deadline, Limited::new(body, limit).collect())
        .await
        .map_err(|_| Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body was not received in time"))?
        .map_err(|error| {
            if error.is::<LengthLimitError>() {
                too_large()
            } else {
                Refusal::new(StatusCode::BAD_REQUEST, "the body is incomplete or broken")
            }
        })?;
    Ok(body.to_bytes())
}
