//! Conversions between integer types that cannot fail on the targets of this crate, and so need no error; and the bound of
//! durations.

use std::time::Duration;

const _: () = assert!(usize::BITS == 64, "lengths of memory and of files have the same range here");

/// A length in memory as a number of bytes of a file.
pub(crate) fn to_u64(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// A number of bytes of a file as a length in memory.
pub(crate) fn to_usize(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// Longer than any program runs, and short enough to be added to an instant.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// A time limit of the user's, bounded so that instants can be computed with it.
pub(crate) fn bounded(limit: Duration) -> Duration {
    limit.min(LONGEST)
}
