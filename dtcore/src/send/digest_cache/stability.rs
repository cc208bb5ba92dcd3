//! Whether a digest may be remembered: only if the object's identity shows every later change.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::backend::{Object, ObjectIdentity};

/// How long an object must have been unchanged before digests of it are remembered.
///
/// Two writes within one tick of the file system's clock leave the same change time, so a file changed this recently could
/// change again with the same identity. The kernel's clock ticks every 10 ms at most (`CONFIG_HZ=100`), but ext4 with
/// inodes of 128 bytes and some NFS servers store times in seconds, FAT in steps of 2 s.
pub(crate) const MIN_AGE: Duration = Duration::from_millis(2100);

/// Whether digests of bytes read since `begin` may be remembered, if the object has identity `now` afterwards.
pub(crate) fn is_stable(
    object: &dyn Object,
    now: &ObjectIdentity,
    begin: SystemTime,
    min_age: Duration,
) -> bool {
    *now == object.identity() && is_settled(now, begin, min_age)
}

/// Whether the object had been unchanged for `min_age` when hashing began.
pub(crate) fn is_settled(identity: &ObjectIdentity, begin: SystemTime, min_age: Duration) -> bool {
    // A clock before 1970 settles nothing that was changed since.
    let Some(latest) = begin.duration_since(UNIX_EPOCH).ok().and_then(|begin| begin.checked_sub(min_age))
    else {
        return false;
    };
    i128::try_from(latest.as_nanos()).is_ok_and(|latest| identity.changed() <= latest)
}
