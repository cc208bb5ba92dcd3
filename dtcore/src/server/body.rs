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
use crate::proto::v1;

/// Reads the body, which has a bounded length, within `deadline`.
pub(crate) async fn read_body(request: Request<Incoming>, deadline: Duration) -> Result<Bytes, Refusal> {
    let too_large =
        || Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is over {} bytes", v1::MAX_BODY));
    let headers = request.headers();
    if !headers.contains_key(CONTENT_LENGTH) && !headers.contains_key(TRANSFER_ENCODING) {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "the request has no content-length"));
    }
    let body = request.into_body();
    if body.size_hint().lower() > to_u64(v1::MAX_BODY) {
        return Err(too_large());
    }
    let body = timeout(deadline, Limited::new(body, v1::MAX_BODY).collect())
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
