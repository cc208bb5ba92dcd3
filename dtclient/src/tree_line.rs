//! The line that shows how far the download of a directory is.

use dtcore::TreeProgress;

use crate::units::{bytes, float, per_second};

/// `photos  1200 of 5000 files  1.2 of 4.0 GiB  45.00 MiB/s`; what was found may still grow while the directory is listed.
pub(crate) fn tree_line(name: &str, progress: &TreeProgress) -> String {
    let more = if progress.is_listing { "+" } else { "" };
    let rate = float(progress.bytes) / progress.elapsed.as_secs_f64().max(0.001);
    let failed = if progress.failed > 0 { format!("  {} failed", progress.failed) } else { String::new() };
    format!(
        "{name}  {} of {}{more} files  {} of {}{more}  {}{failed}",
        progress.files,
        progress.found_files,
        bytes(progress.bytes),
        bytes(progress.found_bytes),
        per_second(rate),
    )
}
