//! Parts of the messages of `dtclient` that several tests look for.

/// Follows the number of bytes that a failed transfer leaves for the next run.
pub const SAVED: &str = " saved";

/// Precedes the command that resumes a failed transfer.
pub const TO_RESUME: &str = "to resume, run ";

/// Precedes the number of bytes that a run has from an earlier one.
pub const RESUMING: &str = "resuming: ";

/// The advice after a failure that another attempt may not have.
pub const RUN_AGAIN: &str = "run the command again";
