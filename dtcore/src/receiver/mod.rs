//! The receiving role: one file, fetched over many streams into its place.

mod destination;
mod download;
mod follower;
mod options;
mod protocol1;

pub use download::{CancelHandle, Download, Transfer};
