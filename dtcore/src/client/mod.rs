//! Who dials: a client that downloads files from a server, and uploads files to it.

mod address;
mod answer;
mod attempts;
#[expect(clippy::module_inception, reason = "the client itself, among what it consists of")]
mod client;
mod control;
mod destination;
mod dial;
mod dialled_source;
mod download;
#[cfg(feature = "legacy")]
mod legacy;
mod list;
mod negotiate;
mod options;
mod runtime;
mod transfer;
mod tree;
mod upload;

pub use address::{InvalidAddress, ServerAddress};
pub use client::{Client, ClientBuilder, RemoteFile};
pub use destination::ByteStream;
pub use download::Download;
pub use list::{Entry, List, ListItem, Listing};
pub use options::ProtocolChoice;
pub use transfer::{CancelHandle, Transfer};
pub use tree::TreeDownload;
pub use upload::Upload;
