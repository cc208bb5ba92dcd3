//! Moves files in parallel over many TCP streams, straight into a memory-mapped output, and verifies every byte.
//!
//! Both roles are here: [`Download`] fetches a file, [`Server`] serves a folder. `dtclient` and `dtserver` are thin
//! programs over them.
//!
//! # Fetching
//!
//! A [`Download`] runs on threads of its own and is awaited on any executor. The output appears in one step, complete
//! and verified, or not at all.
//!
//! ```
//! use dtcore::{Download, StreamCount, TransferError};
//!
//! async fn fetch(server: &str, output: &std::path::Path) -> Result<(), Box<dyn std::error::Error>> {
//!     let download = Download::new(server.parse()?, "remote/path", output);
//!     match download.streams(StreamCount::new(8)?).run().await {
//!         Ok(report) => println!("{} bytes in {:?}", report.bytes, report.elapsed),
//!         Err(TransferError::NotFound { name, .. }) => println!("there is no {name}"),
//!         Err(error) if error.is_retryable() => println!("try again: {error}"),
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
//! #     fetch(&address, &folder.path().join("out.bin")).await?;
//! #     serving.abort();
//! #     assert_eq!(std::fs::read(folder.path().join("out.bin"))?, b"content");
//! #     Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! To watch it, [`start`](Download::start) it and read its [`Events`]:
//!
//! ```
//! # async fn watch(download: dtcore::Download) -> Result<(), dtcore::TransferError> {
//! let mut transfer = download.start();
//! let mut events = transfer.take_events().expect("nobody has taken them");
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
//! async fn serve(folder: &std::path::Path, shutdown: impl Future<Output = ()> + Send)
//! -> Result<(), dtcore::ServerError> {
//!     let server = Server::bind(ServerOptions::new(folder)).await?;
//!     println!("serving {} on {}", folder.display(), server.local_addr());
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

mod backend;
mod client;
mod digest;
mod error;
mod event;
mod failure;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod manifest;
mod num;
mod proto;
mod receive;
mod schedule;
mod send;
mod server;
mod sink;
mod sys;
mod transport;

pub use client::{
    ByteStream, CancelHandle, Client, ClientBuilder, Download, InvalidAddress, ProtocolChoice, RemoteFile,
    ServerAddress, Transfer,
};
pub use digest::{Blake3Digest, Checksum, InvalidBlake3, InvalidChecksum, InvalidMd5, Md5Digest};
pub use error::{ErrorKind, TransferError};
pub use event::{Event, Events, Progress, RecoveryStats, Report};
pub use manifest::{InvalidStreamCount, StreamCount, StreamId};
pub use send::{StreamFailure, StreamRefusal};
pub use server::{
    Action, Authorization, AuthorizeRequest, InvalidPortRange, ListeningSocket, PortRange, Server,
    ServerError, ServerEvent, ServerEvents, ServerHandle, ServerOptions, ServerStats, TransferFailure,
    TransferId,
};
pub use sink::{Engine, InvalidEngine};
