//! What a finished transfer has done.

use std::path::PathBuf;
use std::time::Duration;

use crate::digest::{Blake3Digest, Md5Digest};

/// What a finished transfer delivered.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Report {
    /// The path of the file; `None` if it was not written to a file.
    pub output: Option<PathBuf>,
    /// The file's size in bytes.
    pub bytes: u64,
    /// The protocol that was used, 1 or 2.
    pub protocol: u8,
    /// Bytes of the file that were received, each counted as often as it arrived.
    pub received: u64,
    /// Bytes that an earlier run had left, verified.
    pub resumed: u64,
    /// The file's BLAKE3 hash, computed here and equal to the server's. Protocol 2 always has one.
    pub blake3: Option<Blake3Digest>,
    /// The file's MD5, computed here and equal to the server's. Protocol 1 always has one, protocol 2 if it was
    /// requested.
    pub md5: Option<Md5Digest>,
    /// What was lost and repaired.
    pub recovery: RecoveryStats,
    /// Time from the start of the transfer until the last byte had arrived.
    pub received_after: Duration,
    /// Time from the start of the transfer until the output was verified and in place.
    pub elapsed: Duration,
}

/// What a finished upload sent.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct UploadReport {
    /// The file's size in bytes.
    pub bytes: u64,
    /// Bytes of the file that were sent, each as often as it was. Fewer than the size if the server had some already.
    pub sent: u64,
    /// The file's BLAKE3 hash, if the server has compared it: it has not for a file of one block, whose digest that of the block is.
    pub blake3: Option<Blake3Digest>,
    /// How many connections ended early.
    pub streams_lost: u64,
    /// How often reconnecting was tried.
    pub retries: u64,
    /// Time from the start of the transfer until the server reported that the file is in its place.
    pub elapsed: Duration,
}

/// What was lost and repaired in a transfer. All is 0 in protocol 1, which can repair nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct RecoveryStats {
    /// How often reconnecting was tried.
    pub retries: u64,
    /// How many blocks did not match their digest, and were fetched again.
    pub repaired_blocks: u64,
    /// Bytes that were received and discarded: corrupt, cut off, or there already.
    pub wasted_bytes: u64,
    /// How many connections ended early.
    pub streams_lost: u64,
}
