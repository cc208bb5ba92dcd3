//! One kind of digest of entire objects: the known ones, and the ones being computed.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::{DigestError, Object, ObjectIdentity};
use crate::send::digest_cache::hashing::{Hashed, Reading};
use crate::send::fair_queue::{FairPermit, FairQueue};
use crate::sync::Lock;

/// How many digests are remembered, in about half a megabyte.
pub(crate) const CAPACITY: usize = 4096;

/// The session that all digests of a client wait for: a digest serves all transfers of its object.
pub(crate) const ONE_LINE: u64 = 0;

/// Remembers digests by object identity; an object that several clients request at once is read once.
#[derive(Debug)]
pub(crate) struct SingleFlight<D> {
    table: Lock<FlightTable<D>>,
    /// Hashing one object takes a core.
    pub(crate) queue: Arc<FairQueue>,
    pub(crate) tracker: TaskTracker,
    bytes_hashed: Arc<AtomicU64>,
    /// How long an object must have been unchanged when it was read.
    min_age: Duration,
}

#[derive(Debug)]
pub(crate) struct FlightTable<D> {
    pub(crate) known: HashMap<ObjectIdentity, Known<D>>,
    flights: HashMap<ObjectIdentity, Weak<DigestInFlight<D>>>,
    /// Counts lookups; entries remember the lookup that last found them.
    pub(crate) lookups: u64,
}

#[derive(Debug)]
pub(crate) struct Known<D> {
    digest: D,
    last_used: u64,
}

/// A digest that is being computed. Each waiting caller holds it; when the last one drops it, the work is cancelled.
#[derive(Debug)]
struct DigestInFlight<D> {
    progress: watch::Receiver<FlightProgress<D>>,
    hashed: Arc<AtomicU64>,
    /// The job takes the first permit that any of the callers gets, so a client does not wait in the line of the client
    /// that requested the same object before.
    permit: mpsc::Sender<FairPermit>,
    _cancel: DropGuard,
}

#[derive(Clone, Debug)]
enum FlightProgress<D> {
    Waiting,
    Running,
    Ended(Result<D, DigestError>),
}

enum Found<D> {
    Known(D),
    DigestInFlight(Arc<DigestInFlight<D>>),
    Begin(Arc<DigestInFlight<D>>, Job<D>),
}

struct Job<D> {
    progress: watch::Sender<FlightProgress<D>>,
    reading: Reading,
    permit: mpsc::Receiver<FairPermit>,
    flight: Weak<DigestInFlight<D>>,
}

impl<D: Copy + Send + Sync + 'static> SingleFlight<D> {
    pub(crate) fn new(
        queue: Arc<FairQueue>,
        tracker: TaskTracker,
        min_age: Duration,
        bytes_hashed: Arc<AtomicU64>,
    ) -> Self {
        Self { table: Lock::default(), queue, tracker, bytes_hashed, min_age }
    }

    /// The digest of `object`, from memory, from the work of another caller, or from `work` on a thread that may block.
    pub(crate) async fn digest<W>(
        self: &Arc<Self>,
        object: &Arc<dyn Object>,
        client_key: IpAddr,
        work: W,
    ) -> Result<D, DigestError>
    where
        W: FnOnce(&dyn Object, &Reading) -> Result<Hashed<D>, DigestError> + Send + 'static,
    {
        let flight = match self.look_up(object.identity()) {
            Found::Known(digest) => return Ok(digest),
            Found::DigestInFlight(flight) => flight,
            Found::Begin(flight, job) => {
                self.tracker.spawn(Arc::clone(self).run(Arc::clone(object), job, work));
                flight
            }
        };
        let mut progress = flight.progress.clone();
        tokio::select! {
            biased;
            _ = progress.wait_for(|progress| !matches!(progress, FlightProgress::Waiting)) => {}
            permit = self.queue.next(client_key, ONE_LINE) => {
                // If the job has got another permit meanwhile, this one is returned.
                let _ = flight.permit.try_send(permit);
            }
        }
        match progress.wait_for(|progress| matches!(progress, FlightProgress::Ended(_))).await.as_deref() {
            Ok(FlightProgress::Ended(outcome)) => outcome.clone(),
            Ok(FlightProgress::Waiting | FlightProgress::Running) | Err(_) => Err(DigestError::Cancelled),
        }
    }

    /// The digest if it is known.
    pub(crate) fn known(&self, identity: &ObjectIdentity) -> Option<D> {
        let mut table = self.table.lock();
        table.lookups += 1;
        let now = table.lookups;
        let known = table.known.get_mut(identity)?;
        known.last_used = now;
        Some(known.digest)
    }

    /// Remembers a digest that was computed elsewhere.
    pub(crate) fn remember(&self, identity: ObjectIdentity, digest: D) {
        self.table.lock().remember(identity, digest);
    }

    /// Forgets the digest of that version of an object.
    pub(crate) fn forget(&self, identity: &ObjectIdentity) {
        self.table.lock().known.remove(identity);
    }

    /// How many bytes have been hashed of an object whose digest is being computed.
    pub(crate) fn progress(&self, identity: &ObjectIdentity) -> u64 {
        let flight = self.table.lock().flights.get(identity).and_then(Weak::upgrade);
        flight.map_or(0, |flight| flight.hashed.load(Ordering::Relaxed))
    }

    fn look_up(&self, identity: ObjectIdentity) -> Found<D> {
        let mut table = self.table.lock();
        table.lookups += 1;
        let now = table.lookups;
        if let Some(known) = table.known.get_mut(&identity) {
            known.last_used = now;
            return Found::Known(known.digest);
        }
        if let Some(flight) = table.flights.get(&identity).and_then(Weak::upgrade) {
            return Found::DigestInFlight(flight);
        }
        let (progress_sender, progress) = watch::channel(FlightProgress::Waiting);
        let (permit_sender, permit) = mpsc::channel(1);
        let cancel = CancellationToken::new();
        let hashed = Arc::default();
        let flight = Arc::new(DigestInFlight {
            progress,
            hashed: Arc::clone(&hashed),
            permit: permit_sender,
            _cancel: cancel.clone().drop_guard(),
        });
        let bytes_hashed = Arc::clone(&self.bytes_hashed);
        let reading = Reading { cancel, hashed, bytes_hashed, min_age: self.min_age };
        let job = Job { progress: progress_sender, reading, permit, flight: Arc::downgrade(&flight) };
        table.flights.insert(identity, Weak::clone(&job.flight));
        Found::Begin(flight, job)
    }

    /// Hashes the object and publishes the outcome to all callers.
    async fn run<W>(self: Arc<Self>, object: Arc<dyn Object>, job: Job<D>, work: W)
    where
        W: FnOnce(&dyn Object, &Reading) -> Result<Hashed<D>, DigestError> + Send + 'static,
    {
        let identity = object.identity();
        let Job { progress, reading, permit, flight } = job;
        let cancel = reading.cancel.clone();
        let outcome = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(DigestError::Cancelled),
            outcome = hash(&progress, permit, move || work(&*object, &reading)) => outcome,
        };
        {
            let mut table = self.table.lock();
            // After this job was cancelled another one may have started for the same object; its entry stays.
            if let Entry::Occupied(entry) = table.flights.entry(identity)
                && Weak::ptr_eq(entry.get(), &flight)
            {
                entry.remove();
            }
            if let Ok(Hashed { digest, is_stable: true }) = outcome {
                table.remember(identity, digest);
            }
        }
        progress.send_replace(FlightProgress::Ended(outcome.map(|hashed| hashed.digest)));
    }
}

/// Does the work when it has a permit.
async fn hash<D: Send + Sync + 'static>(
    progress: &watch::Sender<FlightProgress<D>>,
    mut permits: mpsc::Receiver<FairPermit>,
    work: impl FnOnce() -> Result<Hashed<D>, DigestError> + Send + 'static,
) -> Result<Hashed<D>, DigestError> {
    let permit = permits.recv().await.ok_or(DigestError::Cancelled)?;
    // Any other permit is returned, for the next job.
    drop(permits);
    progress.send_replace(FlightProgress::Running);
    let working = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        work()
    });
    working.await.unwrap_or_else(|error| {
        Err(if error.is_panic() { DigestError::Failed } else { DigestError::Cancelled })
    })
}

impl<D> Default for FlightTable<D> {
    fn default() -> Self {
        Self { known: HashMap::new(), flights: HashMap::new(), lookups: 0 }
    }
}

impl<D> FlightTable<D> {
    pub(crate) fn remember(&mut self, identity: ObjectIdentity, digest: D) {
        if self.known.len() >= CAPACITY {
            let oldest = self.known.iter().min_by_key(|(_, known)| known.last_used);
            if let Some(oldest) = oldest.map(|(identity, _)| *identity) {
                self.known.remove(&oldest);
            }
        }
        self.known.insert(identity, Known { digest, last_used: self.lookups });
    }
}
