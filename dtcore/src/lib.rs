//! Moves files in parallel over many TCP streams and verifies every byte, as a client and as a server.
//!
//! A [`Client`] downloads files, a [`Server`] serves a directory; `dtclient` and `dtserver` are thin programs over them. There
//! is no encryption or authentication: use it in networks that you trust.
//!
//! # Downloading
//!
//! All transfers of a client share its options, its rate limit and its threads, and are awaited on any executor. A file appears
//! at its output in one step, complete and verified, or not at all; what an interrupted transfer has verified is resumed by the
//! next one.
//!
//! ```
//! use dtcore::{Client, ErrorKind, StreamCount};
//!
//! async fn download(server: &str, output: &std::path::Path) -> Result<(), Box<dyn std::error::Error>> {
//!     let client = Client::builder(server.parse()?).streams(StreamCount::new(8)?).build()?;
//!     match client.download("remote/path").to_path(output).await {
//!         Ok(report) => println!("{} bytes in {:?}", report.bytes, report.elapsed),
//!         Err(error) if error.kind() == ErrorKind::NotFound => println!("no such file"),
//!         Err(error) if error.is_retryable() => println!("retry later: {error}"),
//!         Err(error) => return Err(error.into()),
//!     }
//!     Ok(())
//! }
//! # let folder = tempfile::tempdir()?;
//! # std::fs::create_dir(folder.path().join("remote"))?;
//! # std::fs::write(folder.path().join("remote/path"), "content")?;
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! #     let options = dtcore::ServerOptions::new(folder.path()).bind_address([127, 0, 0, 1].into());
//! #     let server = dtcore::Server::bind(options).await?;
//! #     let address = server.local_addr().to_string();
//! #     let serving = tokio::spawn(server.run(std::future::pending()));
//! #     download(&address, &folder.path().join("out.bin")).await?;
//! #     serving.abort();
//! #     assert_eq!(std::fs::read(folder.path().join("out.bin"))?, b"content");
//! #     Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Besides [`to_path`](Download::to_path) there are [`to_writer`](Download::to_writer),
//! [`to_async_writer`](Download::to_async_writer), [`bytes`](Download::bytes) and [`into_stream`](Download::into_stream). To watch a
//! transfer, read its [`Events`]:
//!
//! ```
//! # async fn watch(client: dtcore::Client) -> Result<(), dtcore::TransferError> {
//! let mut transfer = client.download("remote/path").to_path("out.bin");
//! let mut events = transfer.take_events().expect("they were not taken before");
//! while let Some(event) = events.next().await {
//!     if let dtcore::Event::Progress(progress) = event {
//!         println!("{} bytes received, {} verified", progress.received, progress.verified);
//!     }
//! }
//! transfer.await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Serving
//!
//! A [`Server`] runs on the tokio runtime of the program that embeds it.
//!
//! ```
//! use dtcore::{Server, ServerOptions};
//!
//! async fn serve(directory: &std::path::Path, shutdown: impl Future<Output = ()> + Send)
//! -> Result<(), dtcore::ServerError> {
//!     let server = Server::bind(ServerOptions::new(directory)).await?;
//!     println!("serving {} on {}", directory.display(), server.local_addr());
//!     let mut events = server.events();
//!     tokio::spawn(async move {
//!         while let Some(event) = events.next().await {
//!             println!("{event:?}");
//!         }
//!     });
//!     server.run(shutdown).await;
//!     Ok(())
//! }
//! # let folder = tempfile::tempdir()?;
//! # tokio::runtime::Runtime::new()?.block_on(serve(folder.path(), async {}))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Features
//!
//! All three are on by default.
//!
//! - `client`: [`Client`] and what it needs.
//! - `server`: [`Server`] and what it needs.
//! - `legacy`: protocol 1, for peers that do not speak protocol 2.

// What is shared by both roles has parts that only one of them uses.
#![cfg_attr(
    not(all(feature = "client", feature = "server", feature = "legacy")),
    allow(dead_code, unreachable_pub, unused_imports, reason = "used with other features")
)]

mod backend;
#[cfg(feature = "client")]
mod client;
mod digest;
mod error;
mod event;
mod failure;
#[cfg(all(feature = "fuzzing", feature = "client"))]
#[doc(hidden)]
pub mod fuzzing;
mod manifest;
mod num;
mod proto;
mod receive;
mod schedule;
mod send;
#[cfg(feature = "server")]
mod server;
mod sink;
mod sync;
mod sys;
#[cfg(test)]
mod tests;
mod transport;

#[cfg(feature = "client")]
pub use client::{
    ByteStream, CancelHandle, Client, ClientBuilder, Download, Entry, InvalidAddress, List, ListItem,
    Listing, ProtocolChoice, RemoteFile, ServerAddress, Transfer, TreeDownload, Upload,
};
pub use digest::{Blake3Digest, Checksum, InvalidBlake3, InvalidChecksum, InvalidMd5, Md5Digest};
#[cfg(feature = "client")]
pub use error::{ErrorKind, TransferError};
#[cfg(feature = "client")]
pub use event::{
    Event, Events, FailedEntry, Outage, Progress, RecoveryStats, Report, TreeProgress, TreeReport,
    UploadReport,
};
pub use manifest::{InvalidStreamCount, StreamCount, StreamId};
pub use proto::EntryKind;
#[cfg(feature = "server")]
pub use send::{StreamFailure, StreamRefusal};
#[cfg(feature = "server")]
pub use server::{
    Action, Authorization, AuthorizeRequest, Direction, InvalidPortRange, ListeningSocket, PortRange, Server,
    ServerError, ServerEvent, ServerEvents, ServerHandle, ServerOptions, ServerStats, TransferFailure,
    TransferId, UploadPolicy,
};
#[cfg(feature = "client")]
pub use sink::{Engine, InvalidEngine};
pub use sys::available_threads;
