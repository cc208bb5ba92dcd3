//! The way to the server: the session that is good now, the route that streams take, and how both are found anew.

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex as StdMutex, MutexGuard, PoisonError};

use tokio::net::TcpStream;
use tokio::sync::Mutex;

use crate::client::control::{Control, Offer, Session};
use crate::client::dial::{Route, dial};
use crate::client::negotiate::request;
use crate::client::options::Options;
use crate::digest::Checksum;
use crate::error::TransferError;
use crate::manifest::StreamId;
use crate::proto::v2::{Hello, Replacing};

/// The session and the route of a transfer.
#[derive(Debug)]
pub(crate) struct DialledSource {
    current: StdMutex<Current>,
    /// Held by the one stream that looks for another way; the others wait and take what it has found.
    searching: Mutex<()>,
}

#[derive(Clone, Debug)]
struct Current {
    session: Session,
    route: Route,
    /// How many sessions there were before this one.
    epoch: u64,
    /// Whether some stream got through to the session on this route.
    proven: Proven,
}

/// A session and the route to it that a connection was made for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Way {
    epoch: u64,
    route: Route,
}

impl Current {
    fn way(&self) -> Way {
        Way { epoch: self.epoch, route: self.route }
    }

    fn fall_back(&mut self) {
        (self.route, self.proven) = (Route::ControlPort(self.session.control), Proven::NotYet);
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Proven {
    Yes,
    NotYet,
}

/// Whether there is another way than one on which nothing was heard.
#[derive(Debug)]
pub(crate) enum Elsewhere {
    /// This is the first connection that goes there, and the others follow.
    Found(Box<Dialled>),
    /// The other streams have left that way already.
    Already,
    /// There is none, or no need of one.
    No,
}

/// A connection that waits for its hello.
#[derive(Debug)]
pub(crate) struct Dialled {
    pub(crate) socket: TcpStream,
    session: Session,
    /// Where it leads, if the right server listens there.
    pub(crate) way: Way,
    /// The data port that no stream gets through to, when this connection is the first that goes another way.
    pub(crate) fell_back: Option<SocketAddr>,
}

impl Dialled {
    /// The hello of `stream`.
    pub(crate) fn hello(&self, stream: StreamId, replacing: Replacing) -> Hello {
        Hello {
            stream: stream.byte(),
            secret: self.session.answer.secret.clone(),
            session: self.session.answer.session,
            replacing,
        }
    }
}

impl DialledSource {
    pub(crate) fn new(session: Session) -> Self {
        let route = Route::DataPort(session.data);
        let current = Current { session, route, epoch: 0, proven: Proven::NotYet };
        Self { current: StdMutex::new(current), searching: Mutex::default() }
    }

    /// The file's digests, as far as the answer told them.
    pub(crate) fn told(&self) -> impl Iterator<Item = Checksum> + use<> {
        let answer = self.get().session.answer;
        [answer.blake3.map(Checksum::Blake3), answer.md5.map(Checksum::Md5)].into_iter().flatten()
    }

    /// Connects a stream: by the known route, else by another one, else to a new session.
    ///
    /// # Errors
    /// Why it did not work this time.
    ///
    /// # Cancel safety
    /// What was found is kept, the connection is not.
    pub(crate) async fn connect(&self, options: &Options) -> Result<Dialled, TransferError> {
        let current = self.get();
        match dial(current.route, options.connect_timeout).await {
            Ok(socket) => Ok(reached(current, socket)),
            // It is the right server and the right way, only not now: another session would find it as busy.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                Err(unreachable(current.route, error))
            }
            Err(error) => self.search(current, error, options).await,
        }
    }

    /// The server has answered on a connection of that way. That it was connected to says nothing: somebody else may
    /// listen there.
    pub(crate) fn got_through(&self, way: Way) {
        let mut now = self.lock();
        if now.way() == way {
            now.proven = Proven::Yes;
        }
    }

    /// Whether nobody can tell yet that the right server is at the end of that way: all that is known is that somebody
    /// accepts connections at the data port's address, which a proxy, a tunnel or a load balancer does too.
    pub(crate) fn is_doubtful(&self, way: Way) -> bool {
        let now = self.lock();
        match (way.route, now.route) {
            (Route::ControlPort(_), _) => false,
            (Route::DataPort(_), Route::ControlPort(_)) => true,
            (Route::DataPort(_), Route::DataPort(_)) => now.way() == way && now.proven == Proven::NotYet,
        }
    }

    /// Connects a stream over the control port, because nothing was heard on a connection of that way, and has all others
    /// go there too; unless it was only that connection, which shows in that another one of the same way was answered.
    ///
    /// # Cancel safety
    /// What was found is kept, the connection is not.
    pub(crate) async fn leave(&self, way: Way, options: &Options) -> Elsewhere {
        if !self.is_doubtful(way) {
            return Elsewhere::No;
        }
        let _one = self.searching.lock().await;
        let current = self.get();
        let data = match current.route {
            Route::ControlPort(_) => return Elsewhere::Already,
            Route::DataPort(data) if self.is_doubtful(way) => data,
            Route::DataPort(_) => return Elsewhere::No,
        };
        let route = Route::ControlPort(current.session.control);
        let Ok(socket) = dial(route, options.connect_timeout).await else { return Elsewhere::No };
        let mut now = self.lock();
        // The others have had as long as a first answer takes.
        if now.proven == Proven::Yes {
            return Elsewhere::No;
        }
        now.fall_back();
        Elsewhere::Found(Box::new(Dialled { fell_back: Some(data), ..reached(now.clone(), socket) }))
    }

    /// Finds another way, because the session is not known at the end of this one; gives the address of the data port if
    /// streams do not go there any more.
    ///
    /// A session that was granted a moment ago and is not known there either is known somewhere else: then the port is
    /// another server's, and the streams go where the session came from.
    ///
    /// # Errors
    /// Why there is no other session.
    pub(crate) async fn renew(
        &self,
        way: Way,
        options: &Options,
    ) -> Result<Option<SocketAddr>, TransferError> {
        let _one = self.searching.lock().await;
        {
            let mut current = self.lock();
            if current.way() != way {
                return Ok(None);
            }
            if let Route::DataPort(data) = current.route
                && current.proven == Proven::NotYet
                && current.epoch > 0
            {
                current.fall_back();
                return Ok(Some(data));
            }
        }
        self.ask_anew(options).await.map(|()| None)
    }

    async fn search(
        &self,
        failed: Current,
        error: io::Error,
        options: &Options,
    ) -> Result<Dialled, TransferError> {
        let _one = self.searching.lock().await;
        let mut current = self.get();
        let is_known_to_fail = current.way() == failed.way();
        if is_known_to_fail && current.proven == Proven::Yes {
            // It worked before: the server may have been started anew, with another data port.
            self.ask_anew(options).await?;
            current = self.get();
        }
        if !is_known_to_fail || current.epoch != failed.epoch {
            match dial(current.route, options.connect_timeout).await {
                Ok(socket) => return Ok(reached(current, socket)),
                Err(again) if matches!(current.route, Route::ControlPort(_)) => {
                    return Err(unreachable(current.route, again));
                }
                Err(_) => {}
            }
        }
        let Route::DataPort(data) = current.route else { return Err(unreachable(current.route, error)) };
        // The control port answered a moment ago.
        let route = Route::ControlPort(current.session.control);
        let socket =
            dial(route, options.connect_timeout).await.map_err(|_| unreachable(current.route, error))?;
        self.lock().fall_back();
        Ok(Dialled { fell_back: Some(data), ..reached(Current { route, ..current }, socket) })
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
            (answer.manifest, answer.modified, answer.version)
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

    /// The way that a connection made now would go.
    #[cfg(test)]
    pub(crate) fn way(&self) -> Way {
        self.get().way()
    }

    fn get(&self) -> Current {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        // It is replaced as a whole, so a poisoned lock holds a whole one.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn reached(current: Current, socket: TcpStream) -> Dialled {
    Dialled { socket, way: current.way(), session: current.session, fell_back: None }
}

fn unreachable(route: Route, source: io::Error) -> TransferError {
    TransferError::Unreachable { server: route.to_string(), source }
}
