//! The way to the server: the session that is good now, the route that streams take, and how both are found anew.

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex as StdMutex, MutexGuard, PoisonError};

use tokio::net::TcpStream;
use tokio::sync::Mutex;

use super::super::course::request;
use super::super::options::Options;
use crate::error::TransferError;
use crate::net::{Control, Offer, Route, Session, dial};
use crate::wire::v2::{Greeting, Replacing};
use crate::plan::StreamId;

/// The session and the route of a transfer.
#[derive(Debug)]
pub(super) struct Access {
    current: StdMutex<Current>,
    /// Held by the one stream that looks for another way; the others wait and take what it has found.
    searching: Mutex<()>,
}

#[derive(Clone, Debug)]
struct Current {
    session: Session,
    route: Route,
    /// Counts what was found.
    epoch: u64,
    /// Whether some stream got through to the session.
    proven: Proven,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Proven {
    Yes,
    NotYet,
}

/// A connection that waits for its greeting.
#[derive(Debug)]
pub(super) struct Dialled {
    pub(super) socket: TcpStream,
    session: Session,
    /// Which session it was made for.
    pub(super) epoch: u64,
    /// The address that could not be reached, when this connection is the first that goes another way.
    pub(super) fell_back: Option<SocketAddr>,
}

impl Dialled {
    /// The greeting of `stream`.
    pub(super) fn greeting(&self, stream: StreamId, replacing: Replacing) -> Greeting {
        Greeting {
            stream: stream.byte(),
            secret: self.session.answer.secret.clone(),
            session: self.session.answer.session,
            replacing,
        }
    }
}

impl Access {
    pub(super) fn new(session: Session) -> Self {
        let route = Route::DataPort(session.data);
        let current = Current { session, route, epoch: 0, proven: Proven::NotYet };
        Self { current: StdMutex::new(current), searching: Mutex::default() }
    }

    /// Connects a stream: by the known route, else by another one, else to a new session.
    ///
    /// # Errors
    /// Why it did not work this time.
    ///
    /// # Cancel safety
    /// What was found is kept, the connection is not.
    pub(super) async fn connect(&self, options: &Options) -> Result<Dialled, TransferError> {
        let current = self.get();
        match dial(current.route, options.connect_timeout).await {
            Ok(socket) => Ok(self.reached(current, socket)),
            Err(error) => self.search(current, error, options).await,
        }
    }

    /// Says that the session of `epoch` is no more, so that the next connection asks for another one.
    pub(super) async fn renew(&self, epoch: u64, options: &Options) -> Result<(), TransferError> {
        let _one = self.searching.lock().await;
        if self.get().epoch == epoch { self.ask_anew(options).await } else { Ok(()) }
    }

    async fn search(
        &self,
        failed: Current,
        error: io::Error,
        options: &Options,
    ) -> Result<Dialled, TransferError> {
        let _one = self.searching.lock().await;
        let mut current = self.get();
        let is_known_to_fail = current.epoch == failed.epoch && current.route == failed.route;
        if is_known_to_fail && current.proven == Proven::Yes {
            // It worked before: the server may have been started anew, with another data port.
            self.ask_anew(options).await?;
            current = self.get();
        }
        if !is_known_to_fail || current.epoch != failed.epoch {
            match dial(current.route, options.connect_timeout).await {
                Ok(socket) => return Ok(self.reached(current, socket)),
                Err(again) if matches!(current.route, Route::ControlPort(_)) => {
                    return Err(unreachable(current.route, again));
                }
                Err(_) => {}
            }
        }
        let Route::DataPort(data) = current.route else { return Err(unreachable(current.route, error)) };
        // The control port answered a moment ago.
        let route = Route::ControlPort(current.session.control);
        let socket = dial(route, options.connect_timeout).await.map_err(|_| unreachable(current.route, error))?;
        self.lock().route = route;
        Ok(Dialled { fell_back: Some(data), ..self.reached(Current { route, ..current }, socket) })
    }

    /// Asks the control port for another session of the same file.
    async fn ask_anew(&self, options: &Options) -> Result<(), TransferError> {
        let mut control = Control::open(&options.server, options.connect_timeout).await?;
        let offer = control.ask(&options.name, &request(options), options.stall_timeout).await?;
        let Offer::V2(session) = offer else {
            let what = "it spoke protocol 2 before, and now speaks protocol 1".to_owned();
            return Err(TransferError::Protocol { server: options.server.to_string(), what });
        };
        let mut current = self.lock();
        let same = |session: &Session| {
            let answer = &session.answer;
            (answer.plan, answer.modified, answer.version)
        };
        if same(&session) != same(&current.session) {
            let name = options.name.to_string_lossy().into_owned();
            return Err(TransferError::SourceChanged { server: options.server.to_string(), name });
        }
        // A data port that could not be reached before is not tried again: it would cost the whole time limit.
        let route = match current.route {
            Route::DataPort(_) => Route::DataPort(session.data),
            Route::ControlPort(_) => Route::ControlPort(session.control),
        };
        *current = Current { session, route, epoch: current.epoch + 1, proven: Proven::NotYet };
        Ok(())
    }

    fn reached(&self, current: Current, socket: TcpStream) -> Dialled {
        let mut now = self.lock();
        if now.epoch == current.epoch {
            now.proven = Proven::Yes;
        }
        drop(now);
        Dialled { socket, session: current.session, epoch: current.epoch, fell_back: None }
    }

    fn get(&self) -> Current {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        // It is replaced as a whole, so a poisoned lock holds a whole one.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unreachable(route: Route, source: io::Error) -> TransferError {
    TransferError::Unreachable { server: route.to_string(), source }
}
