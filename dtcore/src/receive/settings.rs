//! What a transfer that is received is asked to do, whatever its source and its sink.

use std::time::Duration;

use super::rate_limit::RateLimit;
use crate::digest::Checksum;
use crate::manifest::StreamCount;
use crate::proto::v2::WholeDigests;
use crate::sink::{Durability, Engine};

/// The settings of one transfer.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) streams: StreamCount,
    /// Which digests of the file are compared in the end.
    pub(crate) digests: WholeDigests,
    pub(crate) verification: Verification,
    /// A digest that the user expects, besides the sender's.
    pub(crate) checksum: Option<Checksum>,
    pub(crate) engine: Engine,
    pub(crate) durability: Durability,
    /// Shared with other transfers, perhaps.
    pub(crate) rate_limit: Option<RateLimit>,
    /// How many rounds of reconnecting may fail in a row.
    pub(crate) retries: u32,
    /// How long no data may arrive on any stream.
    pub(crate) stall_timeout: Duration,
    /// How long the sender may make no progress with the digests of the file.
    pub(crate) digest_timeout: Duration,
}

/// Whether blocks are compared with their digests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verification {
    On,
    /// For benchmarks only: it shows what verification costs.
    #[cfg_attr(not(feature = "bench"), expect(dead_code, reason = "only benchmarks can switch it off"))]
    Off,
}
