//! The display of a running transfer: a bar on a terminal, elsewhere a plain line every few seconds.

use std::time::{Duration, Instant};

use dtcli::{one_line, say};
use dtcore::{Event, Progress, Report, StreamCount};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::args::Verbosity;

/// How often a plain line is printed without a terminal.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

/// How much of the shown rate is replaced by what each progress event measures: the last second or so counts.
const SMOOTHING: f64 = 0.15;

/// What a failed transfer leaves to resume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Resumable {
    /// It had not started: what an earlier one left, if anything, is unchanged.
    Unchanged,
    /// Nothing.
    Nothing,
    /// This many bytes, with their unit.
    Bytes(String),
}

/// Shows a transfer on standard error.
pub(crate) struct Display {
    verbosity: Verbosity,
    streams: StreamCount,
    bar: Option<ProgressBar>,
    started: Instant,
    rate: Rate,
    last_plain: Instant,
    resumable: Resumable,
}

impl Display {
    pub(crate) fn new(verbosity: Verbosity, streams: StreamCount, terminal: bool) -> Self {
        let bar = (terminal && verbosity > Verbosity::Quiet).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
            bar.set_style(style("{spinner} {wide_msg}"));
            bar
        });
        let now = Instant::now();
        let rate = Rate::default();
        Self { verbosity, streams, bar, started: now, rate, last_plain: now, resumable: Resumable::Unchanged }
    }

    pub(crate) fn show(&mut self, event: &Event) {
        match event {
            Event::Connected { server, .. } => {
                self.say_verbose(&format!("connected to {server}, waiting for an answer"));
                if let Some(bar) = &self.bar {
                    bar.set_message("waiting for the server (in protocol 1 it hashes the file first)");
                    bar.enable_steady_tick(Duration::from_millis(200));
                }
            }
            Event::Checking { bytes, of, .. } => {
                let text = format!("verifying the partial file: {}%", percent(*bytes, *of));
                match &self.bar {
                    Some(bar) => bar.set_message(text),
                    None => self.say_periodically(&text),
                }
            }
            Event::Started { size, streams, protocol, resumed, .. } => {
                self.started(*resumed);
                let size_text = size.map_or_else(|| "unknown size".to_owned(), bytes);
                self.say_verbose(&format!("{size_text}, {streams} streams, protocol {protocol}"));
                if *resumed > 0 {
                    self.say_normal(&format!("resuming: {} are there", bytes(*resumed)));
                }
                if let (Some(bar), Some(size)) = (&self.bar, size) {
                    bar.disable_steady_tick();
                    bar.set_length(*size);
                    bar.set_style(style("{bar:16} {wide_msg}"));
                }
            }
            Event::Progress(progress) => self.progress(progress),
            Event::StreamLost { stream, reason, .. } => {
                self.say_verbose(&format!("stream {stream} lost, reconnecting: {}", one_line(reason)));
            }
            Event::BlockCorrupt { block, stream, .. } => {
                self.say_verbose(&format!(
                    "block {block} arrived corrupt on stream {stream}, fetching it again"
                ));
            }
            Event::Resumable { bytes: n, .. } => self.resumable = Resumable::Bytes(bytes(*n)),
            Event::StartedOver { .. } => {
                if let Some(notice) = notice(event) {
                    self.say_normal(&notice);
                }
            }
            _ => {}
        }
    }

    /// Bytes arrive from now on.
    fn started(&mut self, resumed: u64) {
        self.resumable = Resumable::Nothing;
        self.rate = Rate::starting_at(resumed, self.started.elapsed());
    }

    fn progress(&mut self, progress: &Progress) {
        self.rate.update(progress);
        let text = line(progress, self.rate.bytes_per_second, self.streams);
        if let Some(bar) = &self.bar {
            bar.set_position(progress.received);
            bar.set_message(text);
        } else {
            self.say_periodically(&text);
        }
    }

    /// Prints a line without a terminal, unless the last one was just printed.
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
    pub(crate) fn finish(&self, report: &Report, name: &str) {
        if self.verbosity > Verbosity::Quiet {
            say(&summary(report, name));
        }
        if self.verbosity == Verbosity::Verbose {
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

/// The text of an event that is shown once, unless only errors are printed.
#[expect(clippy::wildcard_enum_match_arm, reason = "all others are no notices")]
pub(crate) fn notice(event: &Event) -> Option<String> {
    match event {
        Event::StartedOver { reason, .. } => Some(format!("starting over: {reason}")),
        Event::Resumable { bytes: n, .. } => Some(format!("{} saved", bytes(*n))),
        _ => None,
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

/// The rate of the recent past.
#[derive(Debug, Default)]
struct Rate {
    bytes_per_second: f64,
    /// Bytes that were there when it was last measured, and when that was.
    last: (u64, Duration),
}

impl Rate {
    /// Measured from now on: what was there before has not arrived in this time.
    fn starting_at(received: u64, elapsed: Duration) -> Self {
        Self { bytes_per_second: 0.0, last: (received, elapsed) }
    }

    fn update(&mut self, progress: &Progress) {
        let (received, elapsed) = std::mem::replace(&mut self.last, (progress.received, progress.elapsed));
        let seconds = progress.elapsed.saturating_sub(elapsed).as_secs_f64();
        if seconds > 0.0 {
            let rate = float(progress.received.saturating_sub(received)) / seconds;
            let weight = if self.bytes_per_second > 0.0 { SMOOTHING } else { 1.0 };
            self.bytes_per_second += weight * (rate - self.bytes_per_second);
        }
    }
}

/// `62%  6.2/10.0 GiB  1.18 GiB/s  ETA 0:03  8/8 streams  verified 61%`
fn line(progress: &Progress, rate: f64, streams: StreamCount) -> String {
    let open = format!("{}/{} streams", progress.open_streams, streams);
    let speed = format!("{}/s", bytes_float(rate));
    let Some(size) = progress.size else {
        return format!(
            "{}  {speed}  {open}  verified {}",
            bytes(progress.received),
            bytes(progress.verified)
        );
    };
    let (divisor, unit) = unit(float(size));
    let done = format!("{:.1}/{:.1} {unit}", float(progress.received) / divisor, float(size) / divisor);
    let verified = percent(progress.verified, size);
    if progress.received >= size {
        return format!("100%  {done}  verifying {verified}%");
    }
    let eta = eta(size - progress.received, rate);
    format!("{}%  {done}  {speed}  ETA {eta}  {open}  verified {verified}%", percent(progress.received, size))
}

fn summary(report: &Report, name: &str) -> String {
    let seconds = report.elapsed.as_secs_f64();
    let fetched = report.bytes.saturating_sub(report.resumed);
    let rate = if seconds > 0.0 { float(fetched) / seconds } else { 0.0 };
    let name = one_line(name);
    let blake3 = report.blake3.map_or_else(String::new, |blake3| format!(", blake3 {blake3}"));
    let md5 = report.md5.map_or_else(String::new, |md5| format!(", md5 {md5}"));
    let (n, size, rate) = (report.bytes, bytes(report.bytes), bytes_float(rate));
    let resumed = match report.resumed {
        0 => String::new(),
        resumed => format!(", {} resumed", bytes(resumed)),
    };
    let recovery = recovery(report);
    format!("{name}: {n} bytes ({size}) in {seconds:.2} s, {rate}/s{resumed}{blake3}{md5} verified{recovery}")
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

fn percent(part: u64, whole: u64) -> u64 {
    let percent = u128::from(part) * 100 / u128::from(whole.max(1));
    u64::try_from(percent).unwrap_or(100)
}

/// Minutes and seconds, with hours before them if there are any.
fn eta(left: u64, rate: f64) -> String {
    let Ok(left) = Duration::try_from_secs_f64(float(left) / rate) else { return "-:--".to_owned() };
    let seconds = left.as_secs();
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    if hours > 999 {
        "-:--".to_owned()
    } else if hours > 0 {
        format!("{hours}:{minutes:02}:{:02}", seconds % 60)
    } else {
        format!("{minutes}:{:02}", seconds % 60)
    }
}

fn bytes(n: u64) -> String {
    if n < 1024 { format!("{n} B") } else { bytes_float(float(n)) }
}

fn bytes_float(n: f64) -> String {
    let (divisor, unit) = unit(n);
    format!("{:.2} {unit}", n / divisor)
}

/// The unit in which `n` bytes are at least 1, if there is one.
fn unit(n: f64) -> (f64, &'static str) {
    let mut divisor = 1.0;
    for unit in ["B", "KiB", "MiB", "GiB", "TiB", "PiB"] {
        if n < divisor * 1024.0 {
            return (divisor, unit);
        }
        divisor *= 1024.0;
    }
    (divisor, "EiB")
}

#[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "shown with three digits")]
fn float(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(size: Option<u64>, received: u64, verified: u64) -> Progress {
        let mut progress = Progress::default();
        (progress.size, progress.received, progress.verified, progress.open_streams) =
            (size, received, verified, 8);
        progress
    }

    #[test]
    fn line_shows_size_rate_and_remaining_time() {
        let gib = 1 << 30;
        let streams = StreamCount::default();
        for (progress, expected) in [
            (
                progress(Some(10 * gib), 6_657_199_309, 6_551_000_000),
                "62%  6.2/10.0 GiB  1.18 GiB/s  ETA 0:03  8/8 streams  verified 61%",
            ),
            (progress(Some(gib), gib, gib / 2), "100%  1.0/1.0 GiB  verifying 50%"),
            (progress(None, gib, 0), "1.00 GiB  1.18 GiB/s  8/8 streams  verified 0 B"),
        ] {
            assert_eq!(line(&progress, 1.18 * 1_073_741_824.0, streams), expected);
        }
    }

    #[test]
    fn remaining_time_is_readable() {
        for (left, rate, expected) in [
            (90, 1.0, "1:30"),
            (3 * 3600 + 62, 1.0, "3:01:02"),
            (1, 0.0, "-:--"),
            (u64::MAX, 1.0, "-:--"),
            (0, 1.0, "0:00"),
        ] {
            assert_eq!(eta(left, rate), expected);
        }
    }

    #[test]
    fn rate_follows_the_recent_past() {
        let mut rate = Rate::default();
        let mut at = progress(None, 0, 0);
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
        let mut at = progress(None, resumed + 1_000_000, resumed);
        at.elapsed = elapsed + Duration::from_millis(100);
        rate.update(&at);
        assert!((rate.bytes_per_second - 10_000_000.0).abs() < 1.0, "{rate:?}");

        let mut display = Display::new(Verbosity::Quiet, StreamCount::default(), false);
        display.started(resumed);
        assert_eq!(display.rate.last.0, resumed);
    }
}
