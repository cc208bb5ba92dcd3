//! The receiving role: one file, fetched over many streams into its place.

mod destination;
mod download;
mod follower;
mod intake;
mod lane;
mod options;
mod order;
mod pace;
mod protocol1;

pub use download::{CancelHandle, Download, Transfer};
