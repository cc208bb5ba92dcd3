//! When a request that failed is sent again: to another address, or after a pause.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::options::Options;
use crate::event::{Event, EventSender, Outage};
use crate::failure::{Awaited, Failure};
use crate::manifest::{StreamCount, StreamId};
use crate::schedule::{Backoff, Retries};

/// How often a request is repeated whose offer was damaged on its way.
const DAMAGED: u32 = 3;

/// The longest pause that a server can demand.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The attempts of one request.
pub(super) struct Attempts<'a> {
    events: &'a EventSender,
    /// Whether a server that cannot be reached is tried again.
    is_patient: bool,
    retries: Retries,
    backoff: Option<(StreamId, Backoff)>,
    begun: Instant,
    is_first: bool,
    n_damaged: u32,
    /// The addresses that have accepted a connection and not answered.
    pub(super) silent: Vec<SocketAddr>,
    /// The error of the last of them.
    unanswered: Option<Failure>,
}

impl<'a> Attempts<'a> {
    pub(super) fn new(options: &Options, events: &'a EventSender) -> Self {
        let limit = options.settings.retries;
        Self {
            events,
            is_patient: limit.rounds.is_none(),
            retries: Retries::new(limit, 1),
            backoff: StreamCount::ONE.ids().next().map(|stream| (stream, Backoff::new(stream))),
            begun: Instant::now(),
            is_first: true,
            n_damaged: 0,
            silent: Vec::new(),
            unanswered: None,
        }
    }

    /// A connection to `server` was made.
    pub(super) fn connected(&mut self, server: SocketAddr) {
        let connected = Event::Connected { server };
        if std::mem::replace(&mut self.is_first, false) {
            self.events.emit(connected);
        } else {
            self.events.try_emit(connected);
        }
    }

    /// No connection could be made. Returns when it is time for another attempt.
    ///
    /// # Errors
    /// The one to report, if there is no other attempt.
    pub(super) async fn not_connected(&mut self, error: Failure) -> Result<(), Failure> {
        // That other addresses do not work is no news.
        let error = self.unanswered.take().unwrap_or(error);
        self.silent.clear();
        if self.is_patient && error.is_retryable() { self.pause(error).await } else { Err(error) }
    }

    /// The request to `server` failed. Returns when it is time for another attempt.
    ///
    /// # Errors
    /// The one to report, if there is no other attempt.
    pub(super) async fn failed(&mut self, server: SocketAddr, error: Failure) -> Result<(), Failure> {
        if matches!(error, Failure::TimedOut { awaited: Awaited::Response, .. }) {
            self.silent.push(server);
            self.unanswered = Some(error);
            return Ok(());
        }
        if is_damaged(&error) && self.n_damaged + 1 < DAMAGED {
            self.n_damaged += 1;
            return Ok(());
        }
        let is_lost = self.is_patient && matches!(error, Failure::ConnectionLost { .. });
        if error.is_busy() || is_lost { self.pause(error).await } else { Err(error) }
    }

    async fn pause(&mut self, error: Failure) -> Result<(), Failure> {
        let Some((stream, backoff)) = &mut self.backoff else { return Err(error) };
        if self.retries.failed(*stream, self.begun.elapsed()).is_err() {
            return Err(error);
        }
        let mut pause = backoff.failed();
        if let Failure::Refused { retry_after: Some(after), .. } = &error {
            pause = pause.max((*after).min(LONGEST_PAUSE));
        }
        let outage = Outage { attempt: self.retries.rounds(), limit: self.retries.limit() };
        self.events.try_emit(Event::Retrying { outage, pause, reason: error.to_string() });
        sleep(pause).await;
        Ok(())
    }
}

/// Whether the offer was damaged on its way.
fn is_damaged(error: &Failure) -> bool {
    matches!(error, Failure::ConnectionLost { source: Some(source), .. }
        if source.kind() == io::ErrorKind::InvalidData)
}
