//! The listening side: a server that embeds in any program and serves the files of a folder.

mod admission;
mod auth;
mod body;
mod context;
mod download;
mod error;
pub(crate) mod event;
mod handle;
mod handshake;
mod head;
mod http;
#[cfg(feature = "legacy")]
mod legacy;
mod list;
mod listener;
mod open;
mod options;
mod pack;
mod refusal;
mod request;
mod rewind;
mod router;
mod sessions;
mod stats;
#[cfg(test)]
mod tests;
mod upload;
mod upload_options;
mod uploads;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::timeout;

pub use auth::{Action, Authorization, AuthorizeRequest};
pub use error::ServerError;
pub use event::{Direction, ServerEvent, ServerEvents, TransferFailure, TransferId};
pub use handle::{ListeningSocket, ServerHandle};
pub use options::{InvalidPortRange, PortRange, ServerOptions};
pub use stats::ServerStats;
pub use upload_options::UploadPolicy;

use crate::backend::fs::Root;
use crate::send::Tasks;
use crate::transport::{PortUse, listen};
use context::{Roots, ServerContext};

/// How long what was aborted may take to end.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// A server that listens, and serves once it runs.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    context: Arc<ServerContext>,
}

impl Server {
    /// Opens the folder and listens on the address of the options. Requests wait until [`run`](Self::run) answers them.
    ///
    /// Call it on a tokio runtime with I/O and time enabled.
    ///
    /// # Errors
    /// [`ServerError`] if the folder cannot be served or the address cannot be listened on.
    ///
    /// # Cancel safety
    /// Dropping the future closes everything that it opened.
    pub async fn bind(options: ServerOptions) -> Result<Self, ServerError> {
        let roots = open_roots(&options).await?;
        let address = options.address();
        let port_use = if address.port() == 0 { PortUse::Ephemeral } else { PortUse::Chosen };
        let listener = listen(address, port_use).map_err(|source| ServerError::Listen { address, source })?;
        Self::new(listener, roots, options)
    }

    /// Opens the folder and serves on a socket that listens already, of the standard library or of tokio; the address and port
    /// of the options are ignored.
    ///
    /// # Errors
    /// [`ServerError`] if the folder cannot be served or the socket cannot be used.
    ///
    /// # Cancel safety
    /// As [`bind`](Self::bind); the socket is closed.
    pub async fn from_listener(
        listener: impl Into<ListeningSocket>,
        options: ServerOptions,
    ) -> Result<Self, ServerError> {
        let listener: ListeningSocket = listener.into();
        let roots = open_roots(&options).await?;
        let address = options.address();
        let listener = listener.into_tokio().map_err(|source| ServerError::Listen { address, source })?;
        Self::new(listener, roots, options)
    }

    fn new(listener: TcpListener, roots: Roots, options: ServerOptions) -> Result<Self, ServerError> {
        let address = options.address();
        let local_addr = listener.local_addr().map_err(|source| ServerError::Listen { address, source })?;
        Ok(Self { listener, context: Arc::new(ServerContext::new(options, roots, local_addr)) })
    }

    /// The address and port that the server listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.context.local_addr
    }

    /// The absolute path of the folder that is served.
    pub fn root(&self) -> &Path {
        self.context.root.path()
    }

    /// A new observer, which sees every event from now on.
    pub fn events(&self) -> ServerEvents {
        ServerEvents { receiver: self.context.events.subscribe(), missed: 0 }
    }

    /// The server's counters, to be read at any time.
    pub fn stats(&self) -> ServerStats {
        self.context.stats.clone()
    }

    /// A handle that shuts the server down while it runs.
    pub fn handle(&self) -> ServerHandle {
        ServerHandle::new(&self.context)
    }

    /// Serves until `shutdown` ends or [`ServerHandle::shutdown`] is called, and returns when every task has ended and every
    /// socket is closed.
    ///
    /// After that nothing new is accepted; running streams have the drain timeout to end, then they are
    /// reset, so that no client takes them for complete. A task that has not ended a second later waits for a disk, perhaps
    /// indefinitely, and is left to the runtime.
    ///
    /// # Cancel safety
    /// Dropping the future aborts everything at once; the tasks end on the runtime soon after.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) {
        let Self { listener, context } = self;
        context.tasks().tracker.spawn(listener::run(Arc::clone(&context), listener));
        run_until(context.tasks(), shutdown, context.options.drain_timeout).await;
    }
}

/// Waits until `shutdown` ends or the tasks drain already, drains them for `drain_timeout`, then aborts them.
///
/// # Cancel safety
/// Dropping the future aborts everything at once.
async fn run_until(tasks: &Tasks, shutdown: impl Future<Output = ()>, drain_timeout: Duration) {
    let _draining = tasks.draining.clone().drop_guard();
    let _aborted = tasks.aborted.clone().drop_guard();
    tokio::select! {
        () = tasks.draining.cancelled() => {}
        () = shutdown => {}
    }
    tasks.draining.cancel();
    tasks.tracker.close();
    if timeout(drain_timeout, tasks.tracker.wait()).await.is_err() {
        tasks.aborted.cancel();
        // Everything that can end ends at once.
        let _ = timeout(LAST_WAIT, tasks.tracker.wait()).await;
    }
}

async fn open_roots(options: &ServerOptions) -> Result<Roots, ServerError> {
    let served = Arc::new(open_root(options.root()).await?);
    let uploads = match options.uploads.as_ref().and_then(|policy| policy.directory_path()) {
        Some(directory) => Arc::new(open_root(directory).await?),
        None => Arc::clone(&served),
    };
    Ok(Roots { served, uploads })
}

async fn open_root(path: &Path) -> Result<Root, ServerError> {
    let path = path.to_owned();
    let opening = tokio::task::spawn_blocking({
        let path = path.clone();
        move || Root::new(&path)
    });
    match opening.await {
        Ok(opened) => opened.map_err(|error| ServerError::of_root(path, error)),
        Err(error) => Err(ServerError::Root { path, source: io::Error::other(error) }),
    }
}
