//! When a request that failed is sent again: to another address, or after a pause.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::control::Control;
use super::options::Options;
use crate::event::{Event, EventSender, Outage};
use crate::failure::{Awaited, Failure};
use crate::manifest::{StreamCount, StreamId};
use crate::schedule::{Backoff, Retries};

/// How often a request is repeated whose offer was damaged on its way.
const DAMAGED: u32 = 3;

/// The longest pause that a server can demand.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How long the first answer may take where the server has other addresses: several times what protocol 2 needs on the longest path.
const SHORT_PATIENCE: Duration = Duration::from_secs(5);

/// The attempts of one request.
pub(super) struct Attempts<'a> {
    options: &'a Options,
    events: &'a EventSender,
    /// Whether a server that cannot be reached is tried again.
    is_patient: bool,
    retries: Retries,
    backoff: Option<(StreamId, Backoff)>,
    begun: Instant,
    is_first: bool,
    n_damaged: u32,
    /// The addresses that have accepted a connection and not answered.
    silent: Vec<SocketAddr>,
    /// The error of the last of them.
    unanswered: Option<Failure>,
    /// Whether an address that does not answer soon is left for another one.
    is_hurried: bool,
    /// The address of the current attempt, and whether the server has others.
    current: Option<(SocketAddr, bool)>,
}

impl<'a> Attempts<'a> {
    pub(super) fn new(options: &'a Options, events: &'a EventSender) -> Self {
        let limit = options.settings.retries;
        Self {
            options,
            events,
            is_patient: limit.rounds.is_none(),
            retries: Retries::new(limit, 1),
            backoff: StreamCount::ONE.ids().next().map(|stream| (stream, Backoff::new(stream))),
            begun: Instant::now(),
            is_first: true,
            n_damaged: 0,
            silent: Vec::new(),
            unanswered: None,
            is_hurried: true,
            current: None,
        }
    }

    /// Connects to the server, again and again where that may help. Returns the connection, and how long the answer on it may take.
    ///
    /// # Errors
    /// The one to report, if there is no other attempt.
    pub(super) async fn connect(&mut self) -> Result<(Control, Duration), Failure> {
        let Options { server, connect_timeout, .. } = self.options;
        loop {
            match Control::open(server, *connect_timeout, &self.silent).await {
                Ok(control) => {
                    self.current = Some((control.peer, control.has_others));
                    self.connected(control.peer);
                    let limit = self.patience(control.has_others, self.options.first_answer_timeout());
                    return Ok((control, limit));
                }
                Err(error) => self.not_connected(error).await?,
            }
        }
    }

    /// How long to wait for the answer, at most `limit`.
    fn patience(&self, has_others: bool, limit: Duration) -> Duration {
        if has_others && self.is_hurried { limit.min(SHORT_PATIENCE) } else { limit }
    }

    /// A connection to `server` was made.
    fn connected(&mut self, server: SocketAddr) {
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
    async fn not_connected(&mut self, error: Failure) -> Result<(), Failure> {
        let is_silent = !std::mem::take(&mut self.silent).is_empty();
        if is_silent && std::mem::replace(&mut self.is_hurried, false) {
            // One of them may be a server of protocol 1, which hashes before it answers.
            return Ok(());
        }
        // That other addresses do not work is no news.
        let error = self.unanswered.take().unwrap_or(error);
        if self.is_patient && error.is_retryable() { self.pause(error).await } else { Err(error) }
    }

    /// The request on the last connection failed. Returns when it is time for another attempt.
    ///
    /// # Errors
    /// The one to report, if there is no other attempt.
    pub(super) async fn failed(&mut self, error: Failure) -> Result<(), Failure> {
        if let Some((server, true)) = self.current
            && matches!(error, Failure::TimedOut { awaited: Awaited::Response, .. })
        {
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
        if let Failure::Refused { retry_after: Some(after), .. }
        | Failure::UploadRefused { retry_after: Some(after), .. } = &error
        {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::address::ServerAddress;
    use crate::event::channel;

    const LIMIT: Duration = Duration::from_secs(60);

    fn silent() -> Failure {
        Failure::TimedOut { server: "host:1".to_owned(), awaited: Awaited::Response, waited: LIMIT }
    }

    /// A server of protocol 1 that hashes for a while is not given up because its name has another address.
    #[tokio::test]
    async fn silent_address_gets_all_the_time_if_no_other_works() {
        let (events, _receiver) = channel();
        let options = Options::new("host:1".parse::<ServerAddress>().unwrap());
        let address = "127.0.0.1:1".parse().unwrap();
        let refused = || Failure::Unreachable {
            server: "host:1".to_owned(),
            source: io::ErrorKind::ConnectionRefused.into(),
        };
        let mut attempts = Attempts::new(&options, &events);
        assert_eq!(attempts.patience(false, LIMIT), LIMIT);
        assert_eq!(attempts.patience(true, LIMIT), SHORT_PATIENCE);
        attempts.current = Some((address, true));
        attempts.failed(silent()).await.unwrap();
        assert_eq!(attempts.silent, [address]);
        attempts.not_connected(refused()).await.unwrap();
        assert_eq!((attempts.silent.len(), attempts.patience(true, LIMIT)), (0, LIMIT));
        attempts.failed(silent()).await.unwrap();
        let error = attempts.not_connected(refused()).await.unwrap_err();
        assert!(matches!(error, Failure::TimedOut { .. }), "{error}");
        // The last address has had all the time.
        attempts.current = Some((address, false));
        assert!(attempts.failed(silent()).await.is_err());
    }
}
