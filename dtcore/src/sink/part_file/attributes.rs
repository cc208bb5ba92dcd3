//! What an output gets of its source besides the bytes.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

/// Attributes of the source that the output is to have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Attributes {
    /// The modification time, in nanoseconds since 1970.
    pub(crate) modified: Option<i64>,
    /// The permission bits.
    pub(crate) mode: Option<u32>,
}

impl Attributes {
    /// Gives them to `file`.
    ///
    /// # Errors
    /// The mode cannot be set. A time that cannot be set makes no complete file useless.
    pub(crate) fn apply(self, file: &File) -> io::Result<()> {
        if let Some(modified) = self.modified {
            let _ = file.set_modified(system_time(modified));
        }
        match self.mode {
            Some(mode) => file.set_permissions(Permissions::from_mode(mode)),
            None => Ok(()),
        }
    }
}

/// The time so many nanoseconds after 1970, or before.
pub(crate) fn system_time(nanoseconds: i64) -> SystemTime {
    let distance = Duration::from_nanos(nanoseconds.unsigned_abs());
    if nanoseconds < 0 { SystemTime::UNIX_EPOCH - distance } else { SystemTime::UNIX_EPOCH + distance }
}

/// A time as nanoseconds since 1970; 0 if they do not fit.
pub(crate) fn nanoseconds(time: SystemTime) -> i64 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(0),
        Err(before) => i64::try_from(before.duration().as_nanos()).map_or(0, |nanos| -nanos),
    }
}
