//! The server over loopback, against clients of raw sockets.

mod library;
mod protocol2;
mod requests;
mod shutdown;
mod sniffing;
mod streams;

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Weak;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;
use crate::proto::v1::LegacyAnswer;

/// Longer than anything here takes, so that a hanging test fails.
const DEADLINE: Duration = Duration::from_secs(30);

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("the test hangs")
}

/// A running server and its folder.
struct Served {
    folder: TempDir,
    address: SocketAddr,
    context: Weak<ServerContext>,
    events: ServerEvents,
    stats: ServerStats,
    shutdown: CancellationToken,
    _guard: DropGuard,
    running: JoinHandle<()>,
}

impl Served {
    async fn start() -> Self {
        Self::with(|options| options).await
    }

    async fn with(adjust: impl FnOnce(ServerOptions) -> ServerOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut options = adjust(ServerOptions::new(folder.path()));
        // Enough for the clocks of the file systems that tests run on, and short.
        options.min_age = Duration::from_millis(20);
        let server = Server::bind(options).await.unwrap();
        let context = Arc::downgrade(&server.context);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, server.local_addr().port()));
        let (events, stats) = (server.events(), server.stats());
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(server.run(shutdown.clone().cancelled_owned()));
        let guard = shutdown.clone().drop_guard();
        Self { folder, address, context, events, stats, shutdown, _guard: guard, running }
    }

    /// Writes a file and returns its path.
    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Makes a file of zeros that takes no space.
    fn sparse(&self, name: &str, size: u64) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::File::create(&path).unwrap().set_len(size).unwrap();
        path
    }

    /// Sends the segments one by one and reads the complete answer.
    async fn exchange(&self, segments: &[&[u8]]) -> String {
        let mut socket = connect(self.address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        for segment in segments {
            socket.write_all(segment).await.unwrap();
        }
        let mut answer = String::new();
        within(socket.read_to_string(&mut answer)).await.unwrap();
        answer
    }

    /// Requests `name` over `n` streams in protocol 1 and returns the address that serves them.
    async fn transfer(&self, name: &str, n: u8) -> SocketAddr {
        let answer = self.exchange(&[&request(name, n)]).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        SocketAddr::from((Ipv4Addr::LOCALHOST, parse(&answer).port))
    }

    /// Waits for the first event for which `wanted` returns something.
    async fn event<T>(&mut self, wanted: impl Fn(&ServerEvent) -> Option<T>) -> T {
        within(async {
            loop {
                let event = self.events.next().await.expect("the server ended");
                if let Some(found) = wanted(&event) {
                    return found;
                }
            }
        })
        .await
    }

    async fn finished(&mut self) {
        self.event(|event| matches!(event, ServerEvent::TransferFinished { .. }).then_some(())).await;
    }

    async fn stop(self) {
        self.shutdown.cancel();
        within(self.running).await.unwrap();
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    within(TcpStream::connect(address)).await
}

fn request(name: &str, n: u8) -> Vec<u8> {
    let body = format!("{{\"threads\": {n}}}");
    format!("POST {name} HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn parse(answer: &str) -> LegacyAnswer {
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    LegacyAnswer::decode(body.as_bytes()).unwrap()
}

/// Opens a stream; nothing is read yet.
async fn open_stream(address: SocketAddr, id: u8) -> TcpStream {
    let mut socket = connect(address).await.unwrap();
    socket.write_all(&[id]).await.unwrap();
    socket
}

/// Reads a stream to its end.
async fn read_stream(address: SocketAddr, id: u8) -> io::Result<Vec<u8>> {
    read_to_end(open_stream(address, id).await).await
}

async fn read_to_end(mut socket: TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    within(socket.read_to_end(&mut bytes)).await.map(|_| bytes)
}

/// Whether the address refuses connections.
async fn is_closed(address: SocketAddr) -> bool {
    connect(address).await.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}
