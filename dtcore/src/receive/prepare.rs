//! Finds out what an earlier transfer has left, and how much of it is of use.

use std::ops::ControlFlow;
use std::sync::Arc;

use tokio::sync::{Notify, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Offered;
use super::prove::{leave, prove};
use super::settings::Settings;
use super::source::{Opened, Source};
use crate::event::{Event, EventSender, PROGRESS_INTERVAL};
use crate::failure::Failure;
use crate::manifest::BlockRun;
use crate::sink::{BeginError, Checked, FileSink, Prepared, Proof, Recovered, Sink};

/// How many outputs are prepared at once: each may be read back for minutes, and names are resolved on the same threads.
static PREPARING: Semaphore = Semaphore::const_new(16);

/// What preparing takes.
pub(super) struct Preparation<'a, S> {
    pub(super) source: &'a S,
    pub(super) offered: &'a Offered,
    pub(super) settings: &'a Settings,
    pub(super) events: &'a EventSender,
    pub(super) place_freed: &'a Arc<Notify>,
    pub(super) started: Instant,
    pub(super) cancel: &'a CancellationToken,
}

/// What a transfer begins with.
pub(super) struct Ready<S> {
    pub(super) sink: Sink,
    pub(super) blocks: FileSink,
    pub(super) recovered: Recovered,
    /// What the sender sends on the first stream without a request, unless that was used for a proof.
    pub(super) pushed: Option<BlockRun>,
    /// The first stream, if it is open already.
    pub(super) verified_on: Option<Opened<S>>,
}

impl<S: Source> Preparation<'_, S> {
    /// Prepares `sink`. If the session expires meanwhile, the first stream requests another one.
    pub(super) async fn run(&self, sink: Sink) -> Result<Ready<S::Stream>, Failure> {
        let pushed = self.offered.pushed;
        let (sink, prepared) = self.prepare(sink, Proof::Pending).await?;
        let claimed = match prepared {
            Prepared::Ready(blocks, recovered) => {
                return Ok(Ready { sink, blocks, recovered, pushed, verified_on: None });
            }
            Prepared::Unverified(claimed) => claimed,
        };
        let Self { source, settings, events, started, cancel, .. } = *self;
        let manifest = self.offered.identity.manifest;
        let proving = prove(source, settings, events, manifest, &claimed, started, cancel);
        let (is_verified, verified_on) = proving.await?;
        let proof = if is_verified { Proof::Verified(claimed) } else { Proof::Refuted };
        match self.prepare(sink, proof).await {
            Ok((sink, Prepared::Ready(blocks, recovered))) => {
                Ok(Ready { sink, blocks, recovered, pushed: None, verified_on })
            }
            failed => {
                if let Some(Opened { stream, .. }) = verified_on {
                    leave(source, stream).await;
                }
                let reason = "the partial file has changed";
                failed.and_then(|_| Err(Failure::system("prepare the output", reason)))
            }
        }
    }

    /// Finds out what is there, on a thread that may be busy with that for minutes: after a reboot all of it is read back.
    async fn prepare(&self, sink: Sink, proof: Proof) -> Result<(Sink, Prepared), Failure> {
        let permit = tokio::select! {
            biased;
            () = self.cancel.cancelled() => return Err(Failure::Cancelled),
            permit = PREPARING.acquire() => permit.map_err(|_| Failure::thread_died("prepare the output"))?,
        };
        let (mut sink, identity, name) = (sink, self.offered.identity.clone(), self.source.name().clone());
        let (events, cancel) = (self.events.clone(), self.cancel.clone());
        let (engine, n_streams) = (self.settings.engine, self.settings.streams.value());
        let place_freed = Arc::clone(self.place_freed);
        let mut reported: Option<Instant> = None;
        let mut watch = move |checked: Checked| {
            if reported.is_none_or(|reported| reported.elapsed() >= PROGRESS_INTERVAL) {
                reported = Some(Instant::now());
                events.try_emit(Event::Checking { bytes: checked.bytes, of: checked.of });
            }
            if cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let preparing = spawn_blocking(move || {
            let _permit = permit;
            let freed = Box::new(move || place_freed.notify_waiters());
            let prepared = sink.prepare(&identity, proof, engine, n_streams, freed, &mut watch);
            let prepared = prepared.map_err(|error| match error {
                BeginError::SourceChanged => {
                    let part = sink.path().to_owned();
                    Failure::SourceReplaced { server: name.peer, name: name.file, part }
                }
                BeginError::Local(error) => error,
            })?;
            Ok((sink, prepared))
        });
        preparing.await.map_err(|_| Failure::thread_died("prepare the output"))?
    }
}
