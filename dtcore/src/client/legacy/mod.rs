//! The course of a transfer in protocol 1: open all streams, receive, compare the MD5, publish.

mod intake;
mod lane;
mod order;
mod pace;
mod ration;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use crate::client::control::Transfer;
use crate::client::destination::Destination;
use crate::client::negotiate::compare;
use crate::client::options::Options;
use crate::digest::{Checksum, FileDigests, FileHasher};
use crate::error::{DigestOrigin, TransferError};
use crate::event::{Event, EventSender, Progress, RecoveryStats, Report};
use crate::manifest::{StaticSplit, StreamId};
use crate::receive::in_order::{Duties, InOrderReader, Outcome};
use crate::sink::Store;
use crate::transport::connect_retrying;
use intake::{Fault, Intake};
use lane::{Lane, Space};
use order::Order;
use ration::Ration;

/// How often progress is told and stalled streams are looked for.
const TICK: Duration = Duration::from_millis(100);

/// Receives what the server offers, to its end. Dropping the future at any point leaves nothing behind.
pub(super) async fn run(
    options: Options,
    mut destination: Destination,
    offer: Transfer,
    events: EventSender,
    started: Instant,
) -> Result<Report, TransferError> {
    events.send(Event::Started {
        size: offer.size,
        streams: options.streams,
        protocol: 1,
        block: None,
        resumed: 0,
    });

    let store = destination.store(options.engine, offer.size)?;
    let spills = spills(&options, &destination, &offer)?;
    let streams = open_streams(&options, offer.data).await?;
    let intake = intake(&options, &offer, &store, &spills, streams)?;
    drop(spills);

    let duties = Duties {
        home: home(&destination, store),
        sink: destination.take_sink(),
        path: destination.path().to_owned(),
        hasher: match options.checksum {
            Some(Checksum::Blake3(_)) => FileHasher::default().with_md5().with_blake3(),
            Some(Checksum::Md5(_)) | None => FileHasher::default().with_md5(),
        },
    };
    let (follower, mut digested) = InOrderReader::spawn(duties)?;
    let mut course = Course { options, offer, intake, follower, events, started };
    let bytes = course.receive(&mut digested, &destination).await?;
    let received_after = started.elapsed();
    let digests = course.digest(&mut digested, bytes).await?;
    course.compare(&digests)?;
    let output = destination.publish(bytes, course.options.durability)?;
    Ok(Report {
        output,
        bytes,
        protocol: 1,
        received: bytes,
        resumed: 0,
        blake3: digests.blake3,
        md5: digests.md5,
        trouble: RecoveryStats::default(),
        received_after,
        elapsed: started.elapsed(),
    })
}

/// Where bytes that were received elsewhere are moved: only a file has such a place.
fn home(destination: &Destination, store: Arc<dyn Store>) -> Option<Arc<dyn Store>> {
    matches!(destination, Destination::File(_)).then_some(store)
}

/// A store for each stream behind the first, when the size and with it their places in the file are not known.
fn spills(
    options: &Options,
    destination: &Destination,
    offer: &Transfer,
) -> Result<Vec<Arc<dyn Store>>, TransferError> {
    let behind_the_first = if offer.size.is_some() { 0 } else { usize::from(options.streams.value()) - 1 };
    (0..behind_the_first).map(|_| destination.spill()).collect()
}

/// Connects all streams, each of which names itself in its first byte.
///
/// All of them are opened, also those whose part is empty: an original server waits for every one.
async fn open_streams(
    options: &Options,
    data: SocketAddr,
) -> Result<Vec<(StreamId, TcpStream)>, TransferError> {
    let open = |id: StreamId| async move {
        let mut stream = connect_retrying(data, options.connect_timeout).await?;
        // A server that is through with this stream already may have closed it; what it sent decides.
        let _ = stream.write_all(&[id.byte()]).await;
        Ok((id, stream))
    };
    try_join_all(options.streams.ids().map(open)).await
}

/// The lanes: into ranges of the one store, or each into its own.
fn intake(
    options: &Options,
    offer: &Transfer,
    store: &Arc<dyn Store>,
    spills: &[Arc<dyn Store>],
    streams: Vec<(StreamId, TcpStream)>,
) -> Result<Intake, TransferError> {
    let taken_twice =
        || TransferError::System { action: "divide the output", source: io::Error::other("overlap") };
    let stores: Vec<_> = std::iter::once(store).chain(spills).cloned().collect();
    let mut lanes = Vec::with_capacity(streams.len());
    for (id, stream) in streams {
        let space = match offer.size {
            Some(size) => {
                let range = StaticSplit::new(size, options.streams).range(id);
                Space::new(Arc::clone(store), range.start(), Some(range.end()))
            }
            None => Space::new(stores.get(id.index()).cloned().ok_or_else(taken_twice)?, 0, None),
        };
        lanes.push(Lane::new(id, stream, space));
    }
    let order = match offer.size {
        Some(size) => Order::known(StaticSplit::new(size, options.streams), store.clone()),
        None => Order::unknown(options.streams, stores),
    };
    Ok(Intake::new(lanes, order, Ration::new(options.limit_rate)))
}

fn ticks() -> Interval {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// A transfer whose streams are open.
struct Course {
    options: Options,
    offer: Transfer,
    intake: Intake,
    follower: InOrderReader,
    events: EventSender,
    started: Instant,
}

impl Course {
    /// Receives on all streams to their end and returns the file's size.
    async fn receive(
        &mut self,
        digested: &mut Outcome,
        destination: &Destination,
    ) -> Result<u64, TransferError> {
        let mut tick = ticks();
        loop {
            tokio::select! {
                biased;
                _ = tick.tick() => {
                    self.tell(self.offer.size);
                    self.intake.check_stall(self.options.stall_timeout).map_err(|fault| self.explain(fault, destination))?;
                }
                outcome = digested.wait() => {
                    // Not closed yet, so this can only be an error.
                    outcome?;
                }
                received = self.intake.receive(&self.follower) => {
                    if received.map_err(|fault| self.explain(fault, destination))? {
                        break;
                    }
                }
            }
        }
        self.intake.order().size().map_err(|short| {
            self.explain(
                Fault::Lost { stream: short.stream, received: short.received, reason: None },
                destination,
            )
        })
    }

    /// Waits until the digest has followed to the end of all `size` bytes.
    async fn digest(&mut self, digested: &mut Outcome, size: u64) -> Result<FileDigests, TransferError> {
        let mut tick = ticks();
        self.follower.close();
        let digests = loop {
            tokio::select! {
                biased;
                outcome = digested.wait() => break outcome?,
                _ = tick.tick() => self.tell(Some(size)),
            }
        };
        self.tell(Some(size));
        Ok(digests)
    }

    fn tell(&self, size: Option<u64>) {
        self.events.progress(Progress {
            size,
            received: self.intake.received(),
            verified: self.follower.position(),
            open_streams: self.intake.open_streams(),
            elapsed: self.started.elapsed(),
        });
    }

    fn explain(&self, fault: Fault, destination: &Destination) -> TransferError {
        let server = self.options.server.to_string();
        match fault {
            Fault::Lost { stream, received, reason } => {
                TransferError::ConnectionLost { server, stream: Some(stream), received, source: reason }
            }
            Fault::Stalled { waited } => {
                TransferError::TimedOut { server, activity: "a stream was open", waited }
            }
            Fault::Store(source) => TransferError::local(
                "write",
                destination.path(),
                // An original server does not tell it, and what has come is not what is needed.
                self.offer.size.unwrap_or(0),
                source,
            ),
        }
    }

    /// Compares the digests with what the server says and with what the user demands.
    fn compare(&self, digests: &FileDigests) -> Result<(), TransferError> {
        let server = (DigestOrigin::Server, Checksum::Md5(self.offer.answer.md5));
        let caller = self.options.checksum.map(|checksum| (DigestOrigin::Caller, checksum));
        std::iter::once(server)
            .chain(caller)
            .try_for_each(|(origin, expected)| compare(&self.options, digests, origin, expected))
    }
}
