//! What a transfer that is received is asked to do, whatever its source and its sink.

use std::time::Duration;

use crate::digest::Checksum;
use crate::manifest::StreamCount;
use crate::proto::v2::WholeDigests;
use crate::schedule::RetryLimit;
use crate::sink::{Durability, Engine};
use crate::transport::RateLimit;

/// The settings of one transfer.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) streams: StreamCount,
    pub(crate) md5: ComputeMd5,
    pub(crate) verification: Verification,
    /// A digest that the user expects, besides the sender's.
    pub(crate) checksum: Option<Checksum>,
    pub(crate) engine: Engine,
    pub(crate) durability: Durability,
    /// Shared with other transfers, perhaps.
    pub(crate) rate_limit: Option<RateLimit>,
    /// Whether the sender limits its rate.
    pub(crate) is_sender_limited: bool,
    /// How long reconnecting may go on without progress.
    pub(crate) retries: RetryLimit,
    /// How long no data may arrive on any stream.
    pub(crate) stall_timeout: Duration,
    /// How long the sender's answer may take, and how long it may make no progress with the digests of the file.
    pub(crate) answer_timeout: Duration,
}

impl Settings {
    /// Which digests of the file are compared in the end.
    pub(crate) fn digests(&self) -> WholeDigests {
        match (self.md5, self.checksum) {
            (ComputeMd5::Yes, _) | (_, Some(Checksum::Md5(_))) => WholeDigests::Blake3AndMd5,
            (ComputeMd5::No, Some(Checksum::Blake3(_)) | None) => WholeDigests::Blake3,
        }
    }
}

/// Whether the file's MD5 is computed and compared beside its BLAKE3 hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ComputeMd5 {
    Yes,
    No,
}

/// Whether blocks are compared with their digests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verification {
    On,
    /// For benchmarks only: it shows what verification costs.
    #[cfg_attr(not(feature = "bench"), expect(dead_code, reason = "only benchmarks can switch it off"))]
    Off,
}
