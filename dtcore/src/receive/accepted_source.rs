//! A sender that dials: its connections wait here until the engine opens their streams, as in an upload.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

use super::dt_stream::DtStream;
use super::frame_reader::FrameReader;
use super::source::{EndNotice, Opened, RemoteName, Source};
use super::wake::Wake;
use crate::failure::Failure;
use crate::manifest::{Manifest, StreamCount, StreamId};
use crate::proto::v2::{ReceiverFailure, Replacing, Request};
use crate::sync::Lock;
use crate::transport::Connection;

/// How long the system tries to deliver the last bytes to a sender.
const LINGER: Duration = Duration::from_secs(10);

/// How long the outcome of a transfer may take to get into a socket: no time, unless the path is broken.
const CONCLUDE_TIMEOUT: Duration = Duration::from_secs(1);

/// What is assumed of a path on which the other side has dialled: on a shorter one it costs nothing, on a longer one little, as requests
/// are sent ahead.
const ASSUMED_RTT: Duration = Duration::from_millis(10);

/// How a transfer ended for its sender.
pub(crate) type Conclusion = Result<(), (ReceiverFailure, String)>;

/// The connections of one transfer that its sender has made.
#[derive(Debug)]
pub(crate) struct AcceptedStreams {
    manifest: Manifest,
    n_streams: StreamCount,
    state: Lock<State>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Those whose streams are not open.
    waiting: HashMap<StreamId, FrameReader>,
    /// Those that are kept for the outcome.
    kept: Vec<DtStream>,
    /// What is sent on every connection from now on.
    conclusion: Option<Vec<u8>>,
}

impl AcceptedStreams {
    pub(crate) fn new(manifest: Manifest, n_streams: StreamCount) -> Self {
        Self { manifest, n_streams, state: Lock::default(), arrived: Notify::new() }
    }

    /// The stream with this number, if the transfer has it.
    pub(crate) fn stream(&self, number: u8) -> Option<StreamId> {
        self.n_streams.stream(number)
    }

    /// Takes a connection for `stream`, of which `early` was read before. It replaces one that waits. After the end of the transfer
    /// the sender learns how that ended.
    pub(crate) async fn arrive(&self, stream: StreamId, connection: Connection, early: Vec<u8>) {
        let reader = FrameReader::new(connection, early);
        if let Err((reader, conclusion)) = self.queue(stream, reader) {
            conclude(reader, &conclusion).await;
        }
    }

    /// Lets a connection wait for its stream, or returns it with what to send if the transfer is over.
    fn queue(&self, stream: StreamId, reader: FrameReader) -> Result<(), (FrameReader, Vec<u8>)> {
        let mut state = self.state.lock();
        if let Some(conclusion) = &state.conclusion {
            return Err((reader, conclusion.clone()));
        }
        state.waiting.insert(stream, reader);
        self.arrived.notify_waiters();
        Ok(())
    }

    /// Reports to the sender how the transfer ended, on every connection that is there, and on those that are still to arrive.
    ///
    /// Returns whether that got into a connection now, so that the sender most probably learns of it.
    pub(crate) async fn conclude(&self, conclusion: &Conclusion) -> bool {
        let frame = match conclusion {
            Ok(()) => Request::End.encode().to_vec(),
            Err((failure, reason)) => Request::failure(*failure, reason),
        };
        let (waiting, kept) = {
            let mut state = self.state.lock();
            state.conclusion = Some(frame.clone());
            (std::mem::take(&mut state.waiting), std::mem::take(&mut state.kept))
        };
        let waiting = waiting.into_values();
        let kept = kept.into_iter().map(DtStream::into_reader);
        let sent = join_all(waiting.chain(kept).map(|reader| conclude(reader, &frame))).await;
        sent.contains(&true)
    }
}

/// Sends the last frame, and closes the connection in order; returns whether it is on its way.
async fn conclude(reader: FrameReader, frame: &[u8]) -> bool {
    let sent = timeout(CONCLUDE_TIMEOUT, reader.send(frame, &Wake::default())).await;
    // If it does not arrive, the sender connects again and asks.
    matches!(sent, Ok(Ok(()))) && reader.into_connection().finish(LINGER).is_ok()
}

/// The source of a transfer whose sender dials.
#[derive(Debug)]
pub(crate) struct AcceptedSource {
    name: RemoteName,
    streams: Arc<AcceptedStreams>,
    /// How long a connection is awaited.
    patience: Duration,
}

impl AcceptedSource {
    pub(crate) fn new(name: RemoteName, streams: Arc<AcceptedStreams>, patience: Duration) -> Self {
        Self { name, streams, patience }
    }
}

impl Source for AcceptedSource {
    type Stream = DtStream;

    fn name(&self) -> &RemoteName {
        &self.name
    }

    async fn open(&self, stream: StreamId, _: Replacing) -> Result<Opened<DtStream>, Failure> {
        let deadline = Instant::now() + self.patience;
        loop {
            let arrived = self.streams.arrived.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            if let Some(reader) = self.streams.state.lock().waiting.remove(&stream) {
                let stream = DtStream::new(reader, self.streams.manifest, &[]);
                return Ok(Opened { stream, rtt: ASSUMED_RTT, epoch: 0, pushed: None });
            }
            let late = |_| Failure::ConnectionLost {
                server: self.name.peer.clone(),
                stream: Some(stream.byte()),
                received: 0,
                source: None,
            };
            timeout_at(deadline, arrived).await.map_err(late)?;
        }
    }

    /// The sender is the one who dials.
    async fn renew(&self, _: u64) -> Result<(), Failure> {
        Err(Failure::Protocol {
            server: self.name.peer.clone(),
            what: "it does not know its own session".to_owned(),
        })
    }

    fn reroute(&self, _: u64) -> Result<(), Failure> {
        Err(Failure::Protocol { server: self.name.peer.clone(), what: "it answers in HTTP".to_owned() })
    }

    /// Kept: the transfer is over for the sender when its file is in its place.
    async fn close(&self, stream: DtStream, _: EndNotice, _: &Wake) {
        self.streams.state.lock().kept.push(stream);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::BlockSize;
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    /// A connection, as the receiver has it, and its other end.
    async fn connection() -> (Connection, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sender = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Connection::tcp(Arc::new(listener.accept().await.unwrap().0)), sender)
    }

    async fn read(mut sender: TcpStream) -> Vec<u8> {
        let mut all = Vec::new();
        sender.read_to_end(&mut all).await.unwrap();
        all
    }

    #[tokio::test]
    async fn sender_learns_how_the_transfer_ended_whenever_it_connects() {
        let manifest = Manifest::new(7, BlockSize::new(1 << 16).unwrap()).unwrap();
        let full = Err((ReceiverFailure::DiskFull, "no space left".to_owned()));
        for (conclusion, frame) in [
            (Ok(()), Request::End.encode().to_vec()),
            (full, Request::failure(ReceiverFailure::DiskFull, "no space left")),
        ] {
            let streams = AcceptedStreams::new(manifest, StreamCount::ONE);
            assert!(streams.stream(1).is_none());
            let stream = streams.stream(0).unwrap();
            assert!(!streams.conclude(&conclusion).await, "nobody is there");
            let (late, sender) = connection().await;
            streams.arrive(stream, late, Vec::new()).await;
            assert_eq!(read(sender).await, frame);

            let streams = AcceptedStreams::new(manifest, StreamCount::ONE);
            let (waiting, sender) = connection().await;
            streams.arrive(stream, waiting, Vec::new()).await;
            assert!(streams.conclude(&conclusion).await);
            assert_eq!(read(sender).await, frame);
        }
    }
}
