//! The display of a running transfer: a bar on a terminal that can show one, elsewhere a plain line every few seconds.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use dtcli::{one_line, say};
use dtcore::{Event, Progress, StreamCount, TreeProgress};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::args::Verbosity;
use crate::notices::{notice, retrying_in};
use crate::progress_line::{ProgressLine, SILENCE};
use crate::running::Done;
use crate::summary::{failures, sent, summary, tree};
use crate::tree_line::tree_line;
use crate::units::{bytes, float, percent};

/// How often a plain line is printed without a bar.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

/// After this time a line says how long something is awaited.
const LONG: Duration = Duration::from_secs(2);

/// How much of the shown rate is replaced by what each progress event measures: the last second or so counts.
const SMOOTHING: f64 = 0.15;

/// The columns of a plain line, which nobody cuts off.
const PLAIN_COLUMNS: usize = 200;

/// What a failed transfer leaves to resume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Resumable {
    /// It had not started: what an earlier one left, if anything, is unchanged.
    Unchanged,
    /// Nothing.
    Nothing,
    /// This many bytes, with their unit.
    Bytes(String),
    /// What the server has verified, however much that is.
    AtServer,
}

/// What a transfer does.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Phase {
    /// It waits for this, since then.
    Waiting(String, Instant),
    /// It reads what is there.
    Checking(u64),
    /// Data arrives, or is to.
    Transferring(Progress),
    /// The files of a tree arrive.
    Tree(TreeProgress),
}

/// What the display says about a transfer.
pub(crate) struct View {
    /// The remote file.
    pub(crate) name: String,
    pub(crate) server: String,
    pub(crate) streams: StreamCount,
    pub(crate) is_upload: bool,
}

/// Shows a transfer on standard error.
pub(crate) struct Display {
    view: View,
    verbosity: Verbosity,
    /// The last part of the name.
    name: String,
    bar: Option<ProgressBar>,
    phase: Phase,
    started: Instant,
    rate: Rate,
    last_plain: Instant,
    resumable: Resumable,
}

impl Display {
    pub(crate) fn new(view: View, verbosity: Verbosity) -> Self {
        let bar = (verbosity > Verbosity::Quiet && can_show_a_bar()).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
            bar.set_style(style("{spinner} {wide_msg}"));
            bar
        });
        // What is said through a bar that is never drawn is never seen.
        let bar = bar.filter(|bar| !bar.is_hidden());
        let now = Instant::now();
        let name = one_line(&view.name);
        let phase = Phase::Waiting(format!("connecting to {}", view.server), now);
        Self {
            view,
            verbosity,
            name: name.rsplit('/').next().unwrap_or_default().to_owned(),
            bar,
            phase,
            started: now,
            rate: Rate::default(),
            last_plain: now,
            resumable: Resumable::Unchanged,
        }
    }

    pub(crate) fn show(&mut self, event: &Event) {
        match event {
            Event::Connected { server, .. } => {
                self.say_verbose(&format!("connected to {server}, waiting for an answer"));
                self.wait_for(format!("waiting for an answer from {server}"));
            }
            Event::Retrying { outage, pause, reason, .. } => {
                let text = retrying_in(*outage, *pause, reason);
                if self.bar.is_none() {
                    self.say_normal(&text);
                }
                self.wait_for(text);
            }
            Event::Checking { bytes, of, .. } => self.phase = Phase::Checking(percent(*bytes, *of)),
            Event::Started { size, streams, protocol, resumed, .. } => {
                self.started(*resumed);
                let size_text = size.map_or_else(|| "unknown size".to_owned(), bytes);
                self.say_verbose(&format!("{size_text}, {streams} streams, protocol {protocol}"));
                if *resumed > 0 {
                    self.say_normal(&format!("resuming: {} are there", bytes(*resumed)));
                }
                if let (Some(bar), Some(size)) = (&self.bar, size) {
                    bar.set_length(*size);
                    bar.set_style(style(&format!("{{bar:{}}} {{wide_msg}}", bar_columns())));
                }
            }
            Event::Progress(progress) => {
                self.rate.update(progress);
                self.phase = Phase::Transferring(*progress);
            }
            Event::Tree(progress) => self.phase = Phase::Tree(*progress),
            Event::EntrySkipped { path, reason, .. } => {
                self.say_normal(&format!("skipping {}: {reason}", one_line(&path.to_string_lossy())));
            }
            Event::StreamLost { stream, reason, .. } => {
                self.say_verbose(&format!("stream {stream} lost, reconnecting: {}", one_line(reason)));
            }
            Event::BlockCorrupt { block, stream, .. } => {
                self.say_verbose(&format!(
                    "block {block} arrived corrupt on stream {stream}, fetching it again"
                ));
            }
            Event::UploadResumable => self.resumable = Resumable::AtServer,
            Event::Resumable { bytes: n, .. } => self.resumable = Resumable::Bytes(bytes(*n)),
            Event::StartedOver { .. }
            | Event::StreamsReduced { .. }
            | Event::InPlace { .. }
            | Event::Grown { .. } => {
                if let Some(notice) = notice(event) {
                    self.say_normal(&notice);
                }
            }
            Event::Unlocked => {
                self.say_verbose("the file system of the output has no locks; working without them");
            }
            Event::Publishing => self.wait_for("putting the output in place".to_owned()),
            Event::FilesDone { .. } | _ => {}
        }
        self.update();
    }

    /// Shows how far the transfer is, or how long it has waited. To be called every second.
    pub(crate) fn update(&mut self) {
        let text = match &self.phase {
            Phase::Waiting(what, since) if since.elapsed() >= LONG => {
                format!("{what}, {} s", since.elapsed().as_secs())
            }
            Phase::Waiting(what, _) => what.clone(),
            Phase::Tree(progress) => tree_line(&self.name, progress),
            Phase::Checking(percent) => format!("verifying the partial file: {percent}%"),
            Phase::Transferring(progress) => {
                let columns = self.bar.as_ref().map_or(PLAIN_COLUMNS, |_| columns() - bar_columns() - 1);
                let (name, rate, silent) = (&self.name, self.rate.bytes_per_second, self.rate.silent());
                let View { streams, is_upload, .. } = self.view;
                ProgressLine { name, progress, rate, silent, streams, is_upload }.within(columns)
            }
        };
        match (&self.bar, &self.phase) {
            (Some(bar), Phase::Transferring(progress)) => {
                bar.set_position(progress.received);
                bar.set_message(text);
            }
            (Some(bar), _) => {
                bar.set_message(text);
                bar.tick();
            }
            (None, _) => self.say_periodically(&text),
        }
    }

    fn wait_for(&mut self, what: String) {
        self.phase = Phase::Waiting(what, Instant::now());
    }

    /// Bytes arrive from now on.
    fn started(&mut self, resumed: u64) {
        self.resumable = Resumable::Nothing;
        self.rate = Rate::starting_at(resumed, self.started.elapsed());
    }

    /// The rate in bytes a second, if data arrives.
    pub(crate) fn rate(&self) -> Option<f64> {
        (self.rate.silent() < SILENCE).then_some(self.rate.bytes_per_second)
    }

    /// Prints a line without a bar, unless the last one was just printed.
    fn say_periodically(&mut self, text: &str) {
        if self.verbosity > Verbosity::Quiet && self.last_plain.elapsed() >= PLAIN_EVERY {
            self.last_plain = Instant::now();
            say(text);
        }
    }

    /// Removes the bar from the terminal.
    pub(crate) fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// Prints the last line: the size, the time it took, and the digests.
    pub(crate) fn finish(&self, done: &Done) {
        if let Done::Tree(report) = done {
            for line in failures(report) {
                say(&line);
            }
        }
        if self.verbosity > Verbosity::Quiet {
            say(&match done {
                Done::Fetched(report) => summary(report, &self.view.name),
                Done::Sent(report) => sent(report, &self.view.name),
                Done::Tree(report) => tree(report, &self.view.name),
            });
        }
        if let (Done::Fetched(report), Verbosity::Verbose) = (done, self.verbosity) {
            let lag = report.elapsed.saturating_sub(report.received_after);
            let (received, lag) = (report.received_after.as_secs_f64(), lag.as_secs_f64());
            say(&format!("last byte received after {received:.2} s; verified and in place {lag:.2} s later"));
        }
    }

    /// What the transfer leaves to resume if it has failed.
    pub(crate) fn resumable(&self) -> Resumable {
        self.resumable.clone()
    }

    fn say_verbose(&self, text: &str) {
        if self.verbosity == Verbosity::Verbose {
            self.say(text);
        }
    }

    fn say_normal(&self, text: &str) {
        if self.verbosity > Verbosity::Quiet {
            self.say(text);
        }
    }

    fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => say(text),
        }
    }
}

/// Whether standard error is a terminal that can draw over what it has drawn.
fn can_show_a_bar() -> bool {
    io::stderr().is_terminal()
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb" && !term.is_empty())
}

/// How many columns the terminal has.
fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stderr()).ok();
    size.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0).unwrap_or(80).max(20)
}

/// How many of them the bar takes.
fn bar_columns() -> usize {
    match columns() {
        0..40 => 4,
        40..80 => 8,
        _ => 16,
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

/// The rate of the recent past.
#[derive(Debug)]
struct Rate {
    bytes_per_second: f64,
    /// Bytes that were there when it was last measured, and when that was.
    last: (u64, Duration),
    /// When bytes arrived last.
    moved: Instant,
}

impl Default for Rate {
    fn default() -> Self {
        Self::starting_at(0, Duration::ZERO)
    }
}

impl Rate {
    /// Measured from now on: what was there before has not arrived in this time.
    fn starting_at(received: u64, elapsed: Duration) -> Self {
        Self { bytes_per_second: 0.0, last: (received, elapsed), moved: Instant::now() }
    }

    fn update(&mut self, progress: &Progress) {
        if progress.received > self.last.0 {
            if self.silent() >= SILENCE {
                // The rate of before is not that of now.
                *self = Self::starting_at(self.last.0, self.last.1);
            }
            self.moved = Instant::now();
        }
        let (received, elapsed) = std::mem::replace(&mut self.last, (progress.received, progress.elapsed));
        let seconds = progress.elapsed.saturating_sub(elapsed).as_secs_f64();
        if seconds > 0.0 {
            let rate = float(progress.received.saturating_sub(received)) / seconds;
            let weight = if self.bytes_per_second > 0.0 { SMOOTHING } else { 1.0 };
            self.bytes_per_second += weight * (rate - self.bytes_per_second);
        }
    }

    /// For how long no bytes have arrived.
    fn silent(&self) -> Duration {
        self.moved.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(received: u64) -> Progress {
        let mut progress = Progress::default();
        progress.received = received;
        progress
    }

    #[test]
    fn rate_follows_the_recent_past() {
        let mut rate = Rate::default();
        let mut at = received(0);
        for step in 1..=100 {
            at.elapsed = Duration::from_millis(100 * step);
            at.received = 1_000_000 * step;
            rate.update(&at);
        }
        assert!((rate.bytes_per_second - 10_000_000.0).abs() < 1.0);
    }

    #[test]
    fn resumed_bytes_do_not_count_as_rate() {
        let (resumed, elapsed) = (50 << 30, Duration::from_secs(3));
        let mut rate = Rate::starting_at(resumed, elapsed);
        let mut at = received(resumed + 1_000_000);
        at.elapsed = elapsed + Duration::from_millis(100);
        rate.update(&at);
        assert!((rate.bytes_per_second - 10_000_000.0).abs() < 1.0, "{rate:?}");
    }
}
