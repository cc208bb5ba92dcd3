//! What stands in for protocol 1 in a build without the feature `legacy`.

use std::net::SocketAddr;
use std::sync::Arc;

use http::StatusCode;

use super::ServerContext;
use super::admission::Permit;
use super::refusal::Refusal;
use crate::proto::v1::{LegacyAnswer, LegacyRequest};

/// Refuses a client that does not speak protocol 2.
#[expect(clippy::unused_async, reason = "as the function that it stands in for")]
pub(super) async fn create_transfer(
    _context: &Arc<ServerContext>,
    _peer: SocketAddr,
    _wanted: LegacyRequest,
    _names: Arc<[Vec<u8>]>,
    _permit: Permit,
) -> Result<(LegacyAnswer, u64), Refusal> {
    Err(Refusal::new(StatusCode::BAD_REQUEST, "this server does not speak protocol 1"))
}
