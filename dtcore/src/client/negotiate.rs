//! Starts every transfer: opens the output, requests the file, and lets the protocol that the server chose take over.

use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::attempts::Attempts;
use super::control::{AskUpgrade, ServerAnswer};
use super::dialled_source::{DialledSource, EarlyConnections};
use super::options::{Options, ProtocolChoice};
use crate::digest::Checksum;
use crate::event::{Event, EventSender, Report};
use crate::failure::Failure;
use crate::manifest::{ByteRange, StreamCount};
use crate::proto::v1;
use crate::proto::v2::{Push, ReportedDigests, SessionOffer, SessionRequest};
use crate::receive::{self, Offered};
use crate::sink::{Attributes, Output, Sink, SourceIdentity};
use crate::sys::descriptors;

/// The other streams are dialled before the offer where connecting took longer than this. On a shorter path that gains nothing, and
/// small files cost one connection.
const DIAL_EARLY_FROM: Duration = Duration::from_millis(5);

/// How many files a transfer opens at the same time besides its streams: part file, journal and their folder, what names are
/// resolved with, and a connection to request another session.
const RESERVED_FILES: u64 = 10;

/// Runs one transfer to its end, or until `cancel`.
pub(super) async fn run(
    options: Options,
    output: Output,
    events: EventSender,
    cancel: CancellationToken,
) -> Result<Report, Failure> {
    let started = Instant::now();
    let (clobber, resume) = (options.clobber, options.resume);
    let opening = spawn_blocking(move || {
        let sink = Sink::open(output, clobber, resume)?;
        let gap = sink.first_gap();
        Ok::<_, Failure>((sink, gap))
    });
    // Not cut off by `cancel`: what it creates must be known here to be removed.
    let (sink, gap) = opening.await.map_err(|_| Failure::thread_died("open the output"))??;
    if sink.is_in_place() {
        events.emit(Event::InPlace { path: sink.path().to_owned() });
    }
    if sink.is_unlocked() {
        events.emit(Event::Unlocked);
    }
    let options = with_affordable_streams(options, &events);
    let request = request(&options, gap);
    let negotiated = tokio::select! {
        biased;
        () = cancel.cancelled() => return Err(Failure::Cancelled),
        negotiated = negotiate(&options, &request, &events) => negotiated?,
    };
    let Negotiated { peer, answer, early } = negotiated;
    match answer {
        ServerAnswer::V1(_) if options.protocol == ProtocolChoice::V2 => Err(Failure::Protocol {
            server: options.server.to_string(),
            what: "it speaks protocol 1 only".to_owned(),
        }),
        #[cfg(not(feature = "legacy"))]
        ServerAnswer::V1(_) => Err(Failure::Protocol {
            server: options.server.to_string(),
            what: "it speaks protocol 1, which this build does not".to_owned(),
        }),
        #[cfg(feature = "legacy")]
        ServerAnswer::V1(offer) => {
            let mut sink = sink;
            drop(early);
            sink.restart()?;
            tokio::select! {
                biased;
                () = cancel.cancelled() => Err(Failure::Cancelled),
                result = super::legacy::run(options, sink, offer, events, started) => result,
            }
        }
        ServerAnswer::V2 { offer, stream } => {
            let offered = offered(&options, &offer);
            let settings = options.settings.clone();
            let source = DialledSource::new(options, request, peer, offer, stream, early);
            let offered = Offered { pushed: source.pushed(), ..offered };
            receive::run(source, offered, sink, settings, events, started, cancel).await
        }
    }
}

/// The options with as many streams as this process may open files. In protocol 1 every stream that is requested must be opened,
/// and in protocol 2 the attempts for nothing would use up what the transfer needs besides streams.
fn with_affordable_streams(mut options: Options, events: &EventSender) -> Options {
    let requested = options.settings.streams;
    let spare = descriptors::spare().map(|spare| spare.saturating_sub(RESERVED_FILES).max(1));
    if let Some(spare) = spare.filter(|spare| *spare < u64::from(requested.value()))
        && let Ok(streams) = StreamCount::new(spare)
    {
        options.settings.streams = streams;
        events.emit(Event::StreamsReduced { streams: streams.value(), requested });
    }
    options
}

/// An answer, and what was reached meanwhile.
struct Negotiated {
    peer: std::net::SocketAddr,
    answer: ServerAnswer,
    early: EarlyConnections,
}

/// Requests the file.
async fn negotiate(
    options: &Options,
    request: &SessionRequest,
    events: &EventSender,
) -> Result<Negotiated, Failure> {
    let (body, upgrade) = match options.protocol {
        ProtocolChoice::V1 => {
            (v1::LegacyRequest { streams: options.settings.streams }.encode(), AskUpgrade::No)
        }
        ProtocolChoice::V2 | ProtocolChoice::Auto => (options.body(request), AskUpgrade::Yes),
    };
    let mut attempts = Attempts::new(options, events);
    loop {
        let (control, limit) = attempts.connect().await?;
        let peer = control.peer;
        let n_others = usize::from(options.settings.streams.value()) - 1;
        let early = if upgrade == AskUpgrade::Yes && control.rtt > DIAL_EARLY_FROM {
            EarlyConnections::dial(peer, n_others, options.connect_timeout)
        } else {
            EarlyConnections::default()
        };
        match control.request(&options.name, &body, upgrade, limit).await {
            Ok(answer) => return Ok(Negotiated { peer, answer, early }),
            Err(error) => attempts.failed(error).await?,
        }
    }
}

/// The request for a session, for a receiver that lacks the bytes of `gap`, and perhaps others after it.
fn request(options: &Options, gap: ByteRange) -> SessionRequest {
    let push = Push { from: gap.start(), length: gap.len().min(options.push) };
    let (streams, digests) = (options.settings.streams, options.settings.digests());
    SessionRequest { streams, digests, push, may_grow: options.may_grow }
}

/// What the engine needs to know of an offer.
fn offered(options: &Options, offer: &SessionOffer) -> Offered {
    use std::os::unix::ffi::OsStrExt;
    let identity = SourceIdentity {
        manifest: offer.manifest,
        modified: offer.modified,
        version: offer.version,
        remote: SourceIdentity::remote(&options.server.to_string(), options.name.as_bytes()),
    };
    let known = [offer.blake3.map(Checksum::Blake3), offer.md5.map(Checksum::Md5)];
    let digests = offer.blake3.map(|blake3| ReportedDigests { blake3, md5: offer.md5 });
    let attributes = Attributes {
        modified: Some(offer.modified).filter(|_| options.preserve.times),
        mode: offer.mode.filter(|_| options.preserve.mode),
    };
    Offered { identity, digests, known: known.into_iter().flatten().collect(), pushed: None, attributes }
}
