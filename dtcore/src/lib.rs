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
//! use dtcore::{Download, Event, StreamCount, TransferError};
//!
//! async fn fetch() -> Result<(), Box<dyn std::error::Error>> {
//!     let download = Download::new("files.example:9000".parse()?, "isos/debian.iso", "debian.iso");
//!     let mut transfer = download.streams(StreamCount::new(8)?).start();
//!     let mut events = transfer.take_events().expect("they have not been taken before");
//!     while let Some(event) = events.next().await {
//!         if let Event::Progress(progress) = event {
//!             println!("{} bytes received, {} verified", progress.received, progress.verified);
//!         }
//!     }
//!     match transfer.await {
//!         Ok(report) => println!("{} bytes, md5 {}", report.bytes, report.md5),
//!         Err(TransferError::NotFound { name, .. }) => println!("there is no {name}"),
//!         Err(error) if error.is_retryable() => println!("try again: {error}"),
//!         Err(error) => return Err(error.into()),
//!     }
//!     Ok(())
//! }
//! ```

mod error;
mod event;
mod integrity;
mod net;
mod plan;
mod receiver;
mod storage;
mod sys;
mod wire;

pub use error::TransferError;
pub use event::{Event, Events, Progress, Report};
pub use integrity::{Checksum, InvalidChecksum, InvalidMd5, Md5Digest};
pub use net::{InvalidAddress, ServerAddress};
pub use plan::{InvalidStreamCount, StreamCount};
pub use receiver::{CancelHandle, Download, Transfer};
pub use storage::{Engine, InvalidEngine};
