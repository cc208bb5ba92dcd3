//! What stands in for protocol 1 in a build without the feature `legacy`.

use tokio::time::Instant;

use super::control::LegacyOffer;
use super::options::Options;
use crate::event::{EventSender, Report};
use crate::failure::Failure;
use crate::sink::Sink;

/// Fails: the server does not speak protocol 2.
#[expect(clippy::unused_async, reason = "as the function that it stands in for")]
pub(super) async fn run(
    options: Options,
    _sink: Sink,
    _offer: LegacyOffer,
    _events: EventSender,
    _started: Instant,
) -> Result<Report, Failure> {
    let server = options.server.to_string();
    Err(Failure::Protocol { server, what: "it speaks protocol 1, which this build does not".to_owned() })
}
