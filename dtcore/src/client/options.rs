//! The options of a download.

use std::ffi::OsString;
use std::time::Duration;

use crate::client::address::ServerAddress;
use crate::digest::Checksum;
use crate::manifest::StreamCount;
use crate::proto::v2::WholeDigests;
use crate::receive::{RateLimit, Settings, Verification};
use crate::sink::{Clobber, Durability, Engine, Resume};

/// How many rounds of reconnecting may fail in a row by default: with the pauses between them about twenty seconds, which is
/// what a server takes to restart.
const RETRIES: u32 = 10;

/// The options of one download.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) server: ServerAddress,
    /// The remote file's name, whatever bytes it is made of.
    pub(crate) name: OsString,
    pub(crate) streams: StreamCount,
    pub(crate) protocol: ProtocolChoice,
    pub(crate) engine: Engine,
    pub(crate) clobber: Clobber,
    pub(crate) durability: Durability,
    pub(crate) resume: Resume,
    pub(crate) md5: ComputeMd5,
    pub(crate) checksum: Option<Checksum>,
    pub(crate) verification: Verification,
    /// Shared with other transfers, perhaps.
    pub(crate) rate_limit: Option<RateLimit>,
    /// How many rounds of connecting again may fail in a row.
    pub(crate) retries: u32,
    pub(crate) connect_timeout: Duration,
    pub(crate) stall_timeout: Duration,
    pub(crate) answer_timeout: Duration,
}

/// Which protocol to speak.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum ProtocolChoice {
    /// Protocol 2 where the server has it, else protocol 1.
    #[default]
    Auto,
    /// Protocol 1, as the original server.
    V1,
    /// Protocol 2, or fail.
    V2,
}

/// Whether the file's MD5 is computed and compared beside its BLAKE3 hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ComputeMd5 {
    Yes,
    No,
}

impl Options {
    /// The defaults, for a server.
    pub(super) fn new(server: ServerAddress) -> Self {
        Self {
            server,
            name: OsString::new(),
            streams: StreamCount::default(),
            protocol: ProtocolChoice::default(),
            engine: Engine::default(),
            clobber: Clobber::default(),
            durability: Durability::default(),
            resume: Resume::Allowed,
            md5: ComputeMd5::No,
            checksum: None,
            verification: Verification::On,
            rate_limit: None,
            retries: RETRIES,
            connect_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(60),
            answer_timeout: Duration::from_secs(3600),
        }
    }

    /// Which digests of the whole file protocol 2 asks the server for.
    pub(crate) fn digests(&self) -> WholeDigests {
        match (self.md5, self.checksum) {
            (ComputeMd5::Yes, _) | (_, Some(Checksum::Md5(_))) => WholeDigests::Blake3AndMd5,
            (ComputeMd5::No, Some(Checksum::Blake3(_)) | None) => WholeDigests::Blake3,
        }
    }

    /// What the engine is asked to do.
    pub(super) fn settings(&self) -> Settings {
        Settings {
            streams: self.streams,
            digests: self.digests(),
            verification: self.verification,
            checksum: self.checksum,
            engine: self.engine,
            durability: self.durability,
            rate_limit: self.rate_limit.clone(),
            retries: self.retries,
            stall_timeout: self.stall_timeout,
            digest_timeout: self.answer_timeout,
        }
    }
}
