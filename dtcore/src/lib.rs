//! stub

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
