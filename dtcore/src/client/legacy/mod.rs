//! A transfer in protocol 1: opens all streams, receives, compares the MD5, publishes.
//!
//! Where the server reports the size, each part is received into its place. An original server does not, so the places are not
//! known before the earlier streams have ended: each part is received into a file without a name, and the in-order reader
//! writes the parts to the output one after the other.

mod part;
mod parts;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::answer::LegacyOffer;
use super::options::Options;
use crate::digest::{Checksum, FileDigests, FileHasher};
use crate::event::{Event, EventSender, Progress, RecoveryStats, Report, ticks};
use crate::failure::{Awaited, DigestOrigin, Failure};
use crate::manifest::{StaticSplit, StreamId};
use crate::receive::compare;
use crate::receive::in_order::{Duties, InOrderReader, InOrderResult};
use crate::sink::{Attributes, Sink};
use crate::transport::connect_retrying;
use part::{Part, PartFault};
use parts::Parts;

/// How often progress is reported and stalled streams are looked for.
const TICK: Duration = Duration::from_millis(100);

/// Receives what the server offers, to the end. Dropping the future at any point leaves nothing.
pub(super) async fn run(
    options: Options,
    mut sink: Sink,
    offer: LegacyOffer,
    events: EventSender,
    started: Instant,
) -> Result<Report, Failure> {
    events.emit(Event::Started {
        size: offer.size,
        streams: options.settings.streams,
        protocol: 1,
        block: None,
        resumed: 0,
    });
    let known = match offer.size {
        Some(size) => Some((
            sink.store(options.settings.engine, size)?,
            StaticSplit::new(size, options.settings.streams),
        )),
        None => None,
    };
    let mut parts = Vec::new();
    for (id, stream) in open_streams(&options, offer.data).await? {
        parts.push(match &known {
            Some((store, split)) => Part::of_known_size(id, stream, store.clone(), split.range(id)),
            None => Part::of_unknown_size(id, stream, sink.spill()?),
        });
    }
    let writer = if known.is_some() { sink.take_writer() } else { sink.file_or_writer()? };
    let md5 = FileHasher::default().with_md5();
    let duties = Duties {
        writer,
        path: sink.path().to_owned(),
        hasher: match options.settings.checksum {
            Some(Checksum::Blake3(_)) => md5.with_blake3(),
            Some(Checksum::Md5(_)) | None => md5,
        },
    };
    let (reader, mut in_order) = InOrderReader::spawn(duties)?;
    let parts = Parts::new(parts, options.settings.rate_limit.clone());
    let (path, name) = (sink.path().to_owned(), options.name.to_string_lossy().into_owned());
    let mut transfer = LegacyDownload { options, offer, parts, reader, events, path, started };
    let bytes = transfer.receive(&mut in_order).await?;
    let received_after = started.elapsed();
    let digests = transfer.digest(&mut in_order, bytes).await?;
    let server = (DigestOrigin::Server, Checksum::Md5(transfer.offer.answer.md5));
    let caller = transfer.options.settings.checksum.map(|checksum| (DigestOrigin::Caller, checksum));
    for (origin, expected) in std::iter::once(server).chain(caller) {
        compare(&name, &digests, origin, expected)?;
    }
    Ok(Report {
        output: sink.publish(bytes, transfer.options.settings.durability, Attributes::default())?,
        bytes,
        protocol: 1,
        received: bytes,
        resumed: 0,
        blake3: digests.blake3,
        md5: digests.md5,
        recovery: RecoveryStats::default(),
        received_after,
        elapsed: started.elapsed(),
    })
}

/// Connects all streams; each sends its id as its first byte.
///
/// Streams with an empty part are opened too: an original server waits for every one.
async fn open_streams(options: &Options, data: SocketAddr) -> Result<Vec<(StreamId, TcpStream)>, Failure> {
    let open = |id: StreamId| async move {
        let mut stream = connect_retrying(data, options.connect_timeout).await?;
        // A server that has nothing more to send may have closed it already; the bytes that it sent decide.
        let _ = stream.write_all(&[id.byte()]).await;
        Ok((id, stream))
    };
    try_join_all(options.settings.streams.ids().map(open)).await
}

/// A transfer whose streams are open.
struct LegacyDownload {
    options: Options,
    offer: LegacyOffer,
    parts: Parts,
    reader: InOrderReader,
    events: EventSender,
    /// The file that errors name.
    path: PathBuf,
    started: Instant,
}

impl LegacyDownload {
    /// Receives on all streams until they end, and returns the file's size.
    async fn receive(&mut self, in_order: &mut InOrderResult) -> Result<u64, Failure> {
        let mut tick = ticks(TICK);
        while self.parts.n_open() > 0 {
            tokio::select! {
                biased;
                _ = tick.tick() => {
                    self.report(self.offer.size);
                    let waited = self.options.settings.stall_timeout;
                    if self.parts.is_stalled(waited) {
                        let server = self.options.server.to_string();
                        return Err(Failure::TimedOut { server, awaited: Awaited::Data, waited });
                    }
                }
                result = in_order.wait() => {
                    // The reader is not closed yet, so this can only be an error.
                    result?;
                }
                received = self.parts.receive(&self.reader) => received.map_err(|fault| self.error(fault))?,
            }
        }
        // Parts without a byte are complete from the beginning.
        self.parts.hand_on(&self.reader);
        match self.offer.size {
            Some(size) => Ok(size),
            None => self.parts.size().map_err(|fault| self.error(fault)),
        }
    }

    /// Waits for the digests of all `size` bytes.
    async fn digest(&mut self, in_order: &mut InOrderResult, size: u64) -> Result<FileDigests, Failure> {
        let mut tick = ticks(TICK);
        self.reader.close(size);
        let digests = loop {
            tokio::select! {
                biased;
                result = in_order.wait() => break result?,
                _ = tick.tick() => self.report(Some(size)),
            }
        };
        self.report(Some(size));
        Ok(digests)
    }

    fn report(&self, size: Option<u64>) {
        self.events.progress(Progress {
            outage: None,
            size,
            received: self.parts.received(),
            verified: self.reader.position(),
            open_streams: self.parts.n_open(),
            elapsed: self.started.elapsed(),
        });
    }

    fn error(&self, fault: PartFault) -> Failure {
        match fault {
            PartFault::Lost { stream, received, reason } => Failure::ConnectionLost {
                server: self.options.server.to_string(),
                stream: Some(stream),
                received,
                source: reason,
            },
            // An original server does not report the size, and the bytes that arrived are not what is needed.
            PartFault::Store(source) => {
                Failure::local("write", &self.path, self.offer.size.unwrap_or(0), source)
            }
        }
    }
}
