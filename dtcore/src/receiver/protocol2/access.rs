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
use crate::plan::StreamId;
use crate::wire::v2::{Greeting, Replacing};

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
    /// How many sessions there were before this one.
    epoch: u64,
    /// Whether some stream got through to the session on this route.
    proven: Proven,
}

/// A session and the route to it that a connection was made for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Way {
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

/// A connection that waits for its greeting.
#[derive(Debug)]
pub(super) struct Dialled {
    pub(super) socket: TcpStream,
    session: Session,
    /// Where it leads, if the right server listens there.
    pub(super) way: Way,
    /// The data port that could not be reached, when this connection is the first that goes another way.
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
    pub(super) fn got_through(&self, way: Way) {
        let mut now = self.lock();
        if now.way() == way {
            now.proven = Proven::Yes;
        }
    }

    /// Finds another way, because the session is not known at the end of this one; gives the address of the data port if
    /// streams do not go there any more.
    ///
    /// A session that was granted a moment ago and is not known there either is known somewhere else: then the port is
    /// another server's, and the streams go where the session came from.
    ///
    /// # Errors
    /// Why there is no other session.
    pub(super) async fn renew(
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

    /// The way that a connection made now would go.
    #[cfg(test)]
    pub(super) fn way(&self) -> Way {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{BlockPlan, BlockSize};
    use crate::wire::v2::Answer;
    use std::sync::Arc;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// A control port that answers every request with `answer`, and carries streams if it is asked to.
    struct Control {
        address: SocketAddr,
        answer: Arc<StdMutex<Answer>>,
        /// How it answers an upgrade.
        upgrade: Arc<StdMutex<&'static str>>,
    }

    const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\n\r\n";

    fn answer(version: u8, port: u16) -> Answer {
        Answer {
            plan: BlockPlan::new(1 << 20, BlockSize::new(1 << 16).unwrap()).unwrap(),
            modified: 0,
            version: [version; 16].into(),
            port,
            session: u64::from(version).into(),
            secret: [7; 16].into(),
            md5: None,
            blake3: None,
        }
    }

    impl Control {
        async fn start(port: u16) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let answer = Arc::new(StdMutex::new(answer(1, port)));
            let upgrade = Arc::new(StdMutex::new(SWITCHED));
            let (answering, upgrading) = (Arc::clone(&answer), Arc::clone(&upgrade));
            tokio::spawn(async move {
                loop {
                    let mut socket = listener.accept().await.unwrap().0;
                    let mut request = [0; 4096];
                    let n = socket.read(&mut request).await.unwrap();
                    let reply = if request[..n].starts_with(b"GET ") {
                        upgrading.lock().unwrap().to_string()
                    } else {
                        let body = answering.lock().unwrap().encode();
                        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
                    };
                    socket.write_all(reply.as_bytes()).await.unwrap();
                    tokio::spawn(async move { socket.read(&mut [0]).await });
                }
            });
            Self { address, answer, upgrade }
        }

        fn access(&self) -> (Access, Options) {
            let answer = self.answer.lock().unwrap().clone();
            let mut data = self.address;
            data.set_port(answer.port);
            let mut options = Options::new(self.address.to_string().parse().unwrap(), "f".into());
            options.connect_timeout = Duration::from_secs(10);
            (Access::new(Session { answer, control: self.address, data }), options)
        }
    }

    async fn closed_port() -> u16 {
        TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
    }

    #[tokio::test]
    async fn streams_come_over_the_control_port_where_the_data_port_is_closed() {
        let control = Control::start(closed_port().await).await;
        let (access, options) = control.access();
        let first = access.connect(&options).await.unwrap();
        assert_eq!(first.fell_back.map(|data| data.port()), Some(control.answer.lock().unwrap().port));
        let second = access.connect(&options).await.unwrap();
        assert_eq!(second.fell_back, None, "it is told once");
        assert_eq!(second.socket.peer_addr().unwrap(), control.address);
    }

    #[tokio::test]
    async fn a_busy_control_port_is_no_reason_for_another_session() {
        let control = Control::start(closed_port().await).await;
        let (access, options) = control.access();
        access.got_through(access.connect(&options).await.unwrap().way);
        *control.upgrade.lock().unwrap() = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
        let error = access.connect(&options).await.unwrap_err();
        assert!(error.is_retryable() && matches!(error, TransferError::Unreachable { .. }), "{error:?}");
        *control.upgrade.lock().unwrap() = SWITCHED;
        assert_eq!(access.connect(&options).await.unwrap().way.epoch, 0);
    }

    #[tokio::test]
    async fn many_streams_find_another_way_together() {
        let control = Control::start(closed_port().await).await;
        let (access, options) = control.access();
        let dialled = futures_util::future::join_all((0..8).map(|_| access.connect(&options))).await;
        let told = dialled.into_iter().filter(|dialled| dialled.as_ref().unwrap().fell_back.is_some());
        assert_eq!(told.count(), 1);
    }

    #[tokio::test]
    async fn a_server_that_was_started_anew_is_asked_again() {
        let data = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let control = Control::start(data.local_addr().unwrap().port()).await;
        let (access, options) = control.access();
        let first = access.connect(&options).await.unwrap().way;
        assert_eq!(first.epoch, 0);
        access.got_through(first);
        drop(data);
        let data = TcpListener::bind("127.0.0.1:0").await.unwrap();
        control.answer.lock().unwrap().port = data.local_addr().unwrap().port();
        let again = access.connect(&options).await.unwrap();
        assert_eq!((again.way.epoch, again.fell_back), (1, None));
        assert_eq!(again.socket.peer_addr().unwrap(), data.local_addr().unwrap());
        // Who asks for another session in place of one that is replaced already gets that one.
        assert_eq!(access.renew(first, &options).await.unwrap(), None);
        assert_eq!(access.get().epoch, 1);
        // What was good for a while has come to its end.
        access.got_through(again.way);
        assert_eq!(access.renew(again.way, &options).await.unwrap(), None);
        assert_eq!(access.get().epoch, 2);
    }

    #[tokio::test]
    async fn a_data_port_of_another_server_is_left_for_the_control_port() {
        let data = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let control = Control::start(data.local_addr().unwrap().port()).await;
        let (access, options) = control.access();
        // The session may have been given up while the part file was looked through.
        let first = access.connect(&options).await.unwrap().way;
        assert_eq!(access.renew(first, &options).await.unwrap(), None);
        let second = access.connect(&options).await.unwrap().way;
        assert_eq!((second.epoch, second.route.address()), (1, data.local_addr().unwrap()));
        assert_eq!(access.renew(second, &options).await.unwrap(), Some(data.local_addr().unwrap()));
        assert_eq!(access.renew(second, &options).await.unwrap(), None, "it is told once");
        let third = access.connect(&options).await.unwrap();
        assert_eq!((third.way.epoch, third.fell_back), (1, None));
        assert_eq!(third.socket.peer_addr().unwrap(), control.address);
        // If it is not known there either, only another session helps, by the same route.
        assert_eq!(access.renew(third.way, &options).await.unwrap(), None);
        let last = access.connect(&options).await.unwrap();
        assert_eq!((last.way.epoch, last.socket.peer_addr().unwrap()), (2, control.address));
    }

    #[tokio::test]
    async fn a_session_of_another_version_is_no_way_to_go_on() {
        let control = Control::start(1).await;
        let (access, options) = control.access();
        *control.answer.lock().unwrap() = answer(2, 1);
        assert!(matches!(
            access.renew(access.get().way(), &options).await,
            Err(TransferError::SourceChanged { .. })
        ));
    }
}
