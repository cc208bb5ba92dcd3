//! Events for programs: one JSON object per line, on standard output.
//!
//! Every object has `"v": 1` and `"event"`. Within a version, keys and events may be added, and keep their meaning.

use std::io::{self, Write};
use std::time::Duration;

use dtcli::StandardOutput;
use dtcore::{Event, FailedEntry, Outage, Progress, Report, TreeReport, UploadReport};
use serde_json::{Value, json};

use crate::running::Done;

/// The version of the objects.
const VERSION: u32 = 1;

/// Where the events go.
#[derive(Debug)]
pub(crate) struct EventPrinter {
    out: StandardOutput,
    /// The first error that lost an event.
    lost: Option<io::Error>,
}

impl EventPrinter {
    /// # Errors
    /// Standard output is closed.
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self { out: StandardOutput::open()?, lost: None })
    }

    /// Prints `event`; data arrives at `rate`, in bytes a second.
    pub(crate) fn event(&mut self, event: &Event, rate: Option<f64>) {
        if let Some(object) = of_event(event, rate) {
            self.print(object);
        }
    }

    /// Prints the last object of a transfer that succeeded.
    ///
    /// # Errors
    /// The one that lost an event, this one or an earlier one.
    pub(crate) fn finished(mut self, done: &Done) -> io::Result<()> {
        let last = match done {
            Done::Fetched(report) => of_report(report),
            Done::Sent(report) => of_upload(report),
            Done::Tree(report) => {
                for failure in &report.failures {
                    self.print(of_failure(failure));
                }
                of_tree(report, done.exit_code())
            }
        };
        self.print(last);
        self.lost.map_or(Ok(()), Err)
    }

    /// Prints the last object of a transfer that failed; `code` names the kind of the error.
    pub(crate) fn failed(mut self, exit: u8, code: &str, error: &str) {
        // Notices and failures have a kind; `code` is its earlier name.
        self.print(json!({"event": "failed", "exit": exit, "kind": code, "code": code, "error": error}));
    }

    fn print(&mut self, mut object: Value) {
        if let Some(fields) = object.as_object_mut() {
            fields.insert("v".to_owned(), VERSION.into());
        }
        match self.out.write_all(format!("{object}\n").as_bytes()) {
            // A reader that has closed the pipe has seen enough; the exit code still reports the outcome.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe && self.lost.is_none() => {
                self.lost = Some(error);
            }
            _ => {}
        }
    }
}

fn of_report(report: &Report) -> Value {
    json!({
        "event": "finished",
        "output": report.output.as_ref().map(|path| path.to_string_lossy()),
        "protocol": report.protocol,
        "bytes": report.bytes,
        "received": report.received,
        "resumed": report.resumed,
        "seconds": seconds(report.elapsed),
        "blake3": report.blake3.map(|digest| digest.to_string()),
        "md5": report.md5.map(|digest| digest.to_string()),
        "retries": report.recovery.retries,
        "repaired_blocks": report.recovery.repaired_blocks,
        "wasted_bytes": report.recovery.wasted_bytes,
        "streams_lost": report.recovery.streams_lost,
    })
}

fn of_tree(report: &TreeReport, exit: u8) -> Value {
    json!({
        "event": "finished",
        "protocol": 2,
        "files": report.files,
        "bytes": report.bytes,
        "unchanged": report.unchanged,
        "directories": report.directories,
        "links": report.links,
        "skipped": report.skipped,
        "failed": report.failed,
        "exit": exit,
        "seconds": seconds(report.elapsed),
    })
}

fn of_failure(failure: &FailedEntry) -> Value {
    let kind = if failure.is_local { "local_file" } else { "unreadable" };
    json!({"event": "file_failed", "path": failure.path.to_string_lossy(), "kind": kind, "error": failure.reason})
}

fn of_upload(report: &UploadReport) -> Value {
    json!({
        "event": "finished",
        "protocol": 2,
        "bytes": report.bytes,
        "sent": report.sent,
        "seconds": seconds(report.elapsed),
        "blake3": report.blake3.map(|digest| digest.to_string()),
        "retries": report.retries,
        "streams_lost": report.streams_lost,
    })
}

fn of_event(event: &Event, rate: Option<f64>) -> Option<Value> {
    Some(match event {
        Event::Connected { server, .. } => json!({"event": "connected", "server": server.to_string()}),
        Event::Checking { bytes, of, .. } => json!({"event": "checking", "bytes": bytes, "of": of}),
        Event::Started { size, streams, protocol, block, resumed, .. } => json!({
            "event": "started",
            "protocol": protocol,
            "size": size,
            "streams": streams.value(),
            "block": block,
            "resumed": resumed,
        }),
        Event::Progress(progress) => of_progress(progress, rate),
        Event::StreamLost { stream, reason, .. } => {
            json!({"event": "stream_lost", "stream": stream.byte(), "reason": reason})
        }
        Event::BlockCorrupt { block, stream, .. } => {
            json!({"event": "block_corrupt", "block": block, "stream": stream.byte()})
        }
        Event::Retrying { outage, pause, reason, .. } => json!({
            "event": "retrying",
            "attempt": outage.attempt,
            "of": outage.limit,
            "pause": seconds(*pause),
            "reason": reason,
        }),
        Event::Grown { delivered, .. } => {
            let what = crate::notices::notice(event)?;
            json!({"event": "notice", "kind": "grown", "delivered": delivered, "what": what})
        }
        Event::InPlace { path, .. } => {
            let what = crate::notices::notice(event)?;
            json!({"event": "notice", "kind": "in_place", "part_file": path.to_string_lossy(), "what": what})
        }
        Event::StartedOver { .. } => {
            json!({"event": "notice", "kind": "started_over", "what": crate::notices::notice(event)?})
        }
        Event::StreamsReduced { streams, requested, .. } => json!({
            "event": "notice",
            "kind": "streams_reduced",
            "streams": streams,
            "requested": requested.value(),
            "what": crate::notices::notice(event)?,
        }),
        Event::Unlocked => {
            let what = "the file system of the output has no locks";
            json!({"event": "notice", "kind": "unlocked", "what": what})
        }
        Event::FilesDone { files, .. } => {
            let files = files.iter();
            let files: Vec<Value> =
                files.map(|(path, size)| json!({"path": path.to_string_lossy(), "size": size})).collect();
            json!({"event": "files_done", "files": files})
        }
        Event::EntrySkipped { path, reason, .. } => {
            json!({"event": "skipped", "path": path.to_string_lossy(), "reason": reason})
        }
        Event::Tree(progress) => json!({
            "event": "progress",
            "seconds": seconds(progress.elapsed),
            "files": progress.files,
            "found_files": progress.found_files,
            "received": progress.bytes,
            "found_bytes": progress.found_bytes,
            "listing": progress.is_listing,
            "failed": progress.failed,
        }),
        Event::UploadResumable => {
            let what = "the server keeps what it has verified";
            json!({"event": "notice", "kind": "resumable", "what": what})
        }
        Event::Publishing => json!({"event": "publishing"}),
        Event::Resumable { bytes, .. } => {
            let what = crate::notices::notice(event)?;
            json!({"event": "notice", "kind": "resumable", "bytes": bytes, "what": what})
        }
        _ => return None,
    })
}

/// Rounded to milliseconds, so that small numbers are not written with an exponent.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

fn of_outage(outage: Outage) -> Value {
    json!({"attempt": outage.attempt, "of": outage.limit})
}

fn of_progress(progress: &Progress, rate: Option<f64>) -> Value {
    json!({
        "event": "progress",
        "seconds": seconds(progress.elapsed),
        "size": progress.size,
        "received": progress.received,
        "verified": progress.verified,
        "open_streams": progress.open_streams,
        "rate": rate.map(f64::round),
        "retrying": progress.outage.map(of_outage),
    })
}
