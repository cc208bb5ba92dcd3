//! How far the server is with the digests of the whole file, and since when it has not got any further.

use std::time::Duration;

/// What the server has told of its hashing.
///
/// The count begins again whenever another server, or one that was started anew, hashes; and it falls when one of two
/// digests is done. So only a count that is higher than the one before it says that the server has read something, and
/// only one that is higher than any says that the transfer is nearer to its end: a server that dies whenever it has
/// hashed half of the file is not tried for ever.
#[derive(Debug, Default)]
pub(crate) struct Hashing {
    last: u64,
    most: u64,
    /// When it got further, or was first expected to.
    moved: Duration,
}

/// What a count says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Heard {
    /// Nothing was read since the last time, or it began again.
    Nothing,
    /// Something was read.
    Moved,
    /// The server has never been as far.
    Farther,
}

impl Hashing {
    /// From now on nothing else is waited for.
    pub(crate) fn begin(&mut self, now: Duration) {
        self.moved = now;
    }

    /// The server says that it has read `hashed` bytes.
    pub(crate) fn heard(&mut self, hashed: u64, now: Duration) -> Heard {
        let last = std::mem::replace(&mut self.last, hashed);
        if hashed <= last {
            return Heard::Nothing;
        }
        self.moved = now;
        if hashed <= self.most {
            return Heard::Moved;
        }
        self.most = hashed;
        Heard::Farther
    }

    /// For how long the server has not got any further.
    pub(crate) fn stuck_for(&self, now: Duration) -> Duration {
        now.saturating_sub(self.moved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts that come once a second, and what each says.
    fn check(counts: &[(u64, Heard)], stuck: u64) {
        let mut hashing = Hashing::default();
        hashing.begin(Duration::from_secs(100));
        let mut now = Duration::from_secs(100);
        for (hashed, heard) in counts {
            now += Duration::from_secs(1);
            assert_eq!(hashing.heard(*hashed, now), *heard, "{hashed} of {counts:?}");
        }
        assert_eq!(hashing.stuck_for(now), Duration::from_secs(stuck), "{counts:?}");
    }

    #[test]
    fn only_what_grows_is_a_sign_of_life() {
        use Heard::{Farther, Moved, Nothing};
        check(&[(1, Farther), (5, Farther), (9, Farther)], 0);
        check(&[(0, Nothing), (0, Nothing), (0, Nothing)], 3);
        check(&[(7, Farther), (7, Nothing), (7, Nothing)], 2);
        // A new server, or one of two digests is done: it begins again, which is nothing by itself.
        check(&[(9, Farther), (2, Nothing), (2, Nothing), (4, Moved), (9, Moved), (10, Farther)], 0);
        check(&[(9, Farther), (2, Nothing), (2, Nothing)], 2);
    }
}
