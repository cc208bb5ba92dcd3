//! What a download may be told besides where its bytes go.

use std::ffi::OsString;
use std::time::Duration;

use crate::integrity::Checksum;
use crate::net::ServerAddress;
use crate::plan::StreamCount;
use crate::storage::{Clobber, Durability, Engine};

/// The options of one download.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) server: ServerAddress,
    /// The remote file's name, whatever bytes it is made of.
    pub(super) name: OsString,
    pub(super) streams: StreamCount,
    pub(super) engine: Engine,
    pub(super) clobber: Clobber,
    pub(super) durability: Durability,
    pub(super) checksum: Option<Checksum>,
    pub(super) connect_timeout: Duration,
    pub(super) stall_timeout: Duration,
    pub(super) answer_timeout: Duration,
}
