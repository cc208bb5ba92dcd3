//! A server as a source: dials its streams, and requests another session when the server does not know the one it has.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::control::{AskUpgrade, Control, ServerAnswer, UpgradedStream};
use super::dial::{StreamRoute, dial};
use super::options::Options;
use crate::failure::Failure;
use crate::manifest::{BlockRun, StreamId};
use crate::proto::v2::{Hello, Push, Replacing, SessionOffer, SessionRequest};
use crate::receive::{DtStream, EndNotice, FrameReader, Opened, RemoteName, Source};
use crate::sync::Lock;
use crate::transport::{Connection, failed};

/// Connections that were dialled early are used within this time: a server closes one that says nothing for 10 s.
const EARLY_FOR: Duration = Duration::from_secs(5);

/// A session of a server that was dialled.
#[derive(Debug)]
pub(crate) struct DialledSource {
    options: Options,
    request: SessionRequest,
    name: RemoteName,
    current: Lock<Current>,
    /// The connection of the request, until it is used.
    first: Lock<Option<UpgradedStream>>,
    early: Lock<EarlyConnections>,
    /// Held by the one stream that requests another session; the others wait, and use what it gets.
    renewing: AsyncMutex<()>,
}

/// The session that is valid now.
#[derive(Clone, Debug)]
struct Current {
    offer: SessionOffer,
    /// Where its streams go.
    peer: SocketAddr,
    route: StreamRoute,
    /// How many sessions and routes there were before.
    epoch: u64,
}

impl DialledSource {
    /// The session of an `offer` that `peer` made, with the connection of its request if that became stream 0.
    pub(crate) fn new(
        options: Options,
        request: SessionRequest,
        peer: SocketAddr,
        offer: SessionOffer,
        first: Option<UpgradedStream>,
        early: EarlyConnections,
    ) -> Self {
        let name = RemoteName {
            peer: options.server.to_string(),
            file: options.name.to_string_lossy().into_owned(),
        };
        let current = Current { offer, peer, route: StreamRoute::Direct, epoch: 0 };
        Self {
            options,
            request,
            name,
            current: Lock::new(current),
            first: Lock::new(first),
            early: Lock::new(early),
            renewing: AsyncMutex::default(),
        }
    }

    /// What the server sends on stream 0 without a request.
    pub(crate) fn pushed(&self) -> Option<BlockRun> {
        let first = self.first.lock();
        first.as_ref().and_then(|_| self.request.push.run(&self.current.lock().offer.manifest))
    }

    fn first(&self) -> Option<UpgradedStream> {
        self.first.lock().take()
    }

    async fn connect(&self, current: &Current) -> Result<(TcpStream, Duration), Failure> {
        let early = self.early.lock().next().filter(|_| current.route == StreamRoute::Direct);
        if let Some(early) = early
            && let Ok(Ok(connected)) = early.await
        {
            return Ok(connected);
        }
        let dialled = dial(current.peer, current.route, self.options.connect_timeout).await;
        let server = self.name.peer.clone();
        dialled.map_err(|source| {
            if source.kind() == io::ErrorKind::InvalidData {
                Failure::StreamsBlocked { server }
            } else {
                failed(server, source)
            }
        })
    }
}

impl Source for DialledSource {
    type Stream = DtStream;

    fn name(&self) -> &RemoteName {
        &self.name
    }

    async fn open(&self, stream: StreamId, replacing: Replacing) -> Result<Opened<DtStream>, Failure> {
        let current = self.current.lock().clone();
        let manifest = current.offer.manifest;
        let epoch = current.epoch;
        if stream.index() == 0
            && let Some(first) = self.first()
        {
            let pushed = self.request.push.run(&manifest);
            let reader = FrameReader::new(first.connection, first.early);
            let stream = DtStream::after_offer(reader, manifest, pushed);
            return Ok(Opened { stream, rtt: first.rtt, epoch, pushed });
        }
        let (socket, rtt) = self.connect(&current).await?;
        let hello = Hello {
            stream: stream.byte(),
            secret: current.offer.secret,
            session: current.offer.session,
            replacing,
        };
        let reader = FrameReader::new(Connection::tcp(Arc::new(socket)), Vec::new());
        let stream = DtStream::new(reader, manifest, &hello.encode());
        Ok(Opened { stream, rtt, epoch, pushed: None })
    }

    async fn renew(&self, epoch: u64) -> Result<(), Failure> {
        let _one = self.renewing.lock().await;
        if self.current.lock().epoch != epoch {
            return Ok(());
        }
        let Options { server, name, connect_timeout, settings, .. } = &self.options;
        let control = Control::open(server, *connect_timeout, &[]).await?;
        let peer = control.peer;
        let request = SessionRequest { push: Push::default(), ..self.request };
        let body = self.options.body(&request);
        // Protocol 2 hashes nothing before it answers, so a server that takes longer has stalled.
        let answer = control.request(name, &body, AskUpgrade::No, settings.stall_timeout).await?;
        let ServerAnswer::V2 { offer, .. } = answer else {
            let what = "it answered in protocol 2 before, and now answers in protocol 1".to_owned();
            return Err(Failure::Protocol { server: self.name.peer.clone(), what });
        };
        let mut current = self.current.lock();
        let same = |offer: &SessionOffer| (offer.manifest, offer.modified, offer.version);
        if same(&offer) != same(&current.offer) {
            return Err(self.name.source_changed());
        }
        *current = Current { offer, peer, route: current.route, epoch: epoch + 1 };
        Ok(())
    }

    fn over(&self, notice: EndNotice) {
        if let Some(first) = self.first() {
            first.end_session(notice);
        }
    }

    fn reroute(&self, epoch: u64) -> Result<(), Failure> {
        let mut current = self.current.lock();
        match current.route {
            StreamRoute::Direct => {
                current.route = StreamRoute::Upgrade;
                current.epoch += 1;
                Ok(())
            }
            StreamRoute::Upgrade if current.epoch != epoch => Ok(()),
            StreamRoute::Upgrade => Err(Failure::StreamsBlocked { server: self.name.peer.clone() }),
        }
    }
}

type EarlyConnection = AbortOnDropHandle<io::Result<(TcpStream, Duration)>>;

/// Connections that are made while the request is answered, so that their streams lose no round trip.
#[derive(Debug, Default)]
pub(crate) struct EarlyConnections {
    connecting: Vec<EarlyConnection>,
    since: Option<Instant>,
}

impl EarlyConnections {
    /// Dials `n` connections to `peer`.
    pub(crate) fn dial(peer: SocketAddr, n: usize, limit: Duration) -> Self {
        let connecting =
            (0..n).map(|_| AbortOnDropHandle::new(tokio::spawn(dial(peer, StreamRoute::Direct, limit))));
        Self { connecting: connecting.collect(), since: Some(Instant::now()) }
    }

    /// One of them; none if they are too old.
    fn next(&mut self) -> Option<EarlyConnection> {
        if self.since.is_some_and(|since| since.elapsed() > EARLY_FOR) {
            self.connecting.clear();
        }
        self.connecting.pop()
    }
}
