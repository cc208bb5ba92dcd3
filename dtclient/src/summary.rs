//! The last line of a transfer: the size, the time it took, the digests, and what was repaired.

use dtcli::one_line;
use dtcore::{Report, TreeReport, UploadReport};

use crate::units::{and_rate, bytes, count, size};

/// The line of a transfer that succeeded.
pub(crate) fn summary(report: &Report, name: &str) -> String {
    let seconds = report.elapsed.as_secs_f64();
    let fetched = report.bytes.saturating_sub(report.resumed);
    let rate = and_rate(fetched, seconds);
    let name = one_line(name);
    let blake3 = report.blake3.map_or_else(String::new, |blake3| format!(", blake3 {blake3}"));
    let md5 = report.md5.map_or_else(String::new, |md5| format!(", md5 {md5}"));
    let size = size(report.bytes);
    let resumed = match report.resumed {
        0 => String::new(),
        resumed => format!(", {} resumed", bytes(resumed)),
    };
    let recovery = recovery(report);
    format!("{name}: {size} in {seconds:.2} s{rate}{resumed}{blake3}{md5} verified{recovery}")
}

/// The line of an upload that succeeded.
pub(crate) fn sent(report: &UploadReport, name: &str) -> String {
    let seconds = report.elapsed.as_secs_f64();
    let rate = and_rate(report.sent.min(report.bytes), seconds);
    let size = size(report.bytes);
    let saved = match report.bytes.saturating_sub(report.sent) {
        0 => String::new(),
        saved => format!(", {} were there", bytes(saved)),
    };
    let blake3 = report.blake3.map_or_else(String::new, |blake3| format!(", blake3 {blake3}"));
    let lost = match report.streams_lost {
        0 => String::new(),
        n => format!("; recovered: {} lost", count(n, "stream")),
    };
    format!("{}: {size} sent in {seconds:.2} s{rate}{saved}{blake3} verified{lost}", one_line(name))
}

/// How many failures of a tree are printed.
const MAX_LINES: usize = 100;

/// A line for each entry of a tree that failed.
pub(crate) fn failures(report: &TreeReport) -> Vec<String> {
    let lines = report.failures.iter().take(MAX_LINES);
    let mut lines: Vec<String> = lines
        .map(|failure| {
            let action = if failure.is_local { "write" } else { "fetch" };
            let path = one_line(&failure.path.to_string_lossy());
            format!("dtclient: cannot {action} {path}: {}", one_line(&failure.reason))
        })
        .collect();
    if report.failed > lines.len().try_into().unwrap_or(u64::MAX) {
        lines.push(format!("dtclient: {} failed in all", report.failed));
    }
    lines
}

/// The line of a tree.
pub(crate) fn tree(report: &TreeReport, name: &str) -> String {
    let seconds = report.elapsed.as_secs_f64();
    let rate = and_rate(report.bytes, seconds);
    let others = [(report.unchanged, "unchanged"), (report.skipped, "skipped"), (report.failed, "failed")];
    let others = others.into_iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!(", {n} {what}"));
    let others: Vec<String> = others.collect();
    format!(
        "{}: {}, {} in {seconds:.2} s{rate}{}; all verified",
        one_line(name),
        count(report.files, "file"),
        bytes(report.bytes),
        others.concat()
    )
}

/// What was lost and repaired; nothing if nothing was.
fn recovery(report: &Report) -> String {
    let counted = |n: u64, one: &str, many: &str| match n {
        0 => None,
        1 => Some(format!("1 {one}")),
        n => Some(format!("{n} {many}")),
    };
    let recovery = report.recovery;
    let parts = [
        counted(recovery.streams_lost, "stream lost", "streams lost"),
        counted(recovery.retries, "retry", "retries"),
        counted(recovery.repaired_blocks, "block repaired", "blocks repaired"),
        (recovery.wasted_bytes > 0).then(|| format!("{} wasted", bytes(recovery.wasted_bytes))),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() { String::new() } else { format!("; recovered: {}", parts.join(", ")) }
}
