//! Who dials: one file, fetched over many streams into its place.

pub(crate) mod address;
pub(crate) mod control;
pub(crate) mod dial;
pub(crate) mod dialled_source;
mod download;
mod legacy;
pub(crate) mod negotiate;
pub(crate) mod options;

pub use address::{InvalidAddress, ServerAddress};
pub use download::{CancelHandle, Download, Transfer};
pub use options::ProtocolChoice;
