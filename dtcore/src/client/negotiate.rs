//! The course of every transfer, up to where the protocols part: claim the output, ask the server.

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::legacy;
use crate::client::control::{Control, Offer};
use crate::client::destination::{Destination, Output};
use crate::client::options::{Options, ProtocolChoice};
use crate::digest::{Checksum, FileDigests};
use crate::error::{DigestOrigin, TransferError};
use crate::event::{Event, EventSender, Report};
use crate::proto::{v1, v2};

/// Runs one transfer to its end, or until `cancel`.
pub(crate) async fn run(
    options: Options,
    output: Output,
    events: EventSender,
    cancel: CancellationToken,
) -> Result<Report, TransferError> {
    let started = Instant::now();
    let asking = async {
        let destination = Destination::open(output, &options)?;
        let mut control = Control::open(&options.server, options.connect_timeout).await?;
        events.send(Event::Connected { server: control.peer() });
        let offer = control.ask(&options.name, &request(&options), options.answer_timeout).await?;
        Ok((destination, offer))
    };
    let (mut destination, offer) = tokio::select! {
        biased;
        () = cancel.cancelled() => return Err(TransferError::Cancelled),
        asked = asking => asked?,
    };
    match offer {
        Offer::V1(_) if options.protocol == ProtocolChoice::V2 => Err(TransferError::Protocol {
            server: options.server.to_string(),
            what: "it speaks protocol 1 only".to_owned(),
        }),
        Offer::V1(transfer) => {
            destination.start_over()?;
            tokio::select! {
                biased;
                () = cancel.cancelled() => Err(TransferError::Cancelled),
                result = legacy::run(options, destination, transfer, events, started) => result,
            }
        }
        Offer::V2(session) => {
            crate::receive::run(options, destination, session, events, started, cancel).await
        }
    }
}

/// The body that asks for the file.
pub(crate) fn request(options: &Options) -> String {
    match options.protocol {
        ProtocolChoice::V1 => v1::Request { streams: options.streams }.encode(),
        ProtocolChoice::V2 | ProtocolChoice::Auto => {
            v2::Request { streams: options.streams, digests: options.digests() }.encode()
        }
    }
}

/// Compares what was received with one digest that it should have.
pub(crate) fn compare(
    options: &Options,
    digests: &FileDigests,
    origin: DigestOrigin,
    expected: Checksum,
) -> Result<(), TransferError> {
    match digests.comparable(&expected) {
        Some(actual) if actual != expected => Err(TransferError::DigestMismatch {
            name: options.name.to_string_lossy().into_owned(),
            origin,
            expected,
            actual,
        }),
        Some(_) | None => Ok(()),
    }
}
