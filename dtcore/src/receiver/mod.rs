//! The receiving role: one file, fetched over many streams into its place.

mod course;
mod destination;
mod download;
mod follower;
mod limiter;
mod options;
mod protocol1;
mod protocol2;

pub use download::{CancelHandle, Download, Transfer};
pub use options::ProtocolChoice;
