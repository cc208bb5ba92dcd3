//! The line that shows how far a transfer is, in as many columns as there are.

use std::time::Duration;

use dtcore::{Outage, Progress, StreamCount};

use crate::units::{bytes, eta, float, per_second, percent, unit};

/// How long no data may arrive before there is no rate any more.
pub(crate) const SILENCE: Duration = Duration::from_secs(3);

/// The shortest beginning of a name that is worth its place.
const SHORTEST_NAME: usize = 8;

/// The longest part of a line that a name takes.
const LONGEST_NAME: usize = 32;

/// What a line says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProgressLine<'a> {
    pub(crate) name: &'a str,
    pub(crate) progress: &'a Progress,
    /// In bytes a second.
    pub(crate) rate: f64,
    /// For how long no data has arrived.
    pub(crate) silent: Duration,
    pub(crate) streams: StreamCount,
    /// Whether the server verifies, rather than this side.
    pub(crate) is_upload: bool,
}

impl ProgressLine<'_> {
    /// `debian.iso  62%  1.18 GiB/s  ETA 0:03  6.2/10.0 GiB  8/8 streams  verified 61%`, or as much of it as fits into `columns`: the
    /// share, rate and remaining time in any case.
    pub(crate) fn within(&self, columns: usize) -> String {
        let (important, others) = self.parts();
        let mut line = important;
        let mut rest = columns.saturating_sub(line.chars().count());
        let name = shortened(self.name, rest.saturating_sub(2).min(LONGEST_NAME));
        if let Some(name) = name {
            rest = rest.saturating_sub(name.chars().count() + 2);
            line = format!("{name}  {line}");
        }
        for part in others {
            let needed = part.chars().count() + 2;
            if needed > rest {
                break;
            }
            rest -= needed;
            line.push_str("  ");
            line.push_str(&part);
        }
        line
    }

    /// What is always shown, and what is if there is room.
    fn parts(&self) -> (String, Vec<String>) {
        let Progress { size, received, verified, open_streams, outage, .. } = *self.progress;
        let open = format!("{open_streams}/{} streams", self.streams);
        let speed = match outage {
            Some(outage) => format!("connection lost, {}", retrying(outage)),
            None if self.silent >= SILENCE => format!("no data for {} s", self.silent.as_secs()),
            None if self.rate < 1.0 => "-- B/s".to_owned(),
            None => per_second(self.rate),
        };
        let Some(size) = size else {
            return (
                format!("{}  {speed}", bytes(received)),
                vec![open, format!("verified {}", bytes(verified))],
            );
        };
        let (divisor, unit) = unit(float(size));
        let done = format!("{:.1}/{:.1} {unit}", float(received) / divisor, float(size) / divisor);
        let verified = percent(verified, size);
        if received >= size {
            let rest = if self.is_upload {
                "waiting for the server".to_owned()
            } else {
                format!("verifying {verified}%")
            };
            return (format!("100%  {rest}"), vec![done]);
        }
        let is_moving = outage.is_none() && self.silent < SILENCE;
        let eta =
            if is_moving { format!("  ETA {}", eta(size - received, self.rate)) } else { String::new() };
        let important = format!("{}%  {speed}{eta}", percent(received, size));
        let verified = Some(format!("verified {verified}%")).filter(|_| !self.is_upload);
        (important, [done, open].into_iter().chain(verified).collect())
    }
}

/// `retrying (3 of 10)`
pub(crate) fn retrying(outage: Outage) -> String {
    let of = outage.limit.map(|limit| format!(" of {limit}")).unwrap_or_default();
    format!("retrying ({}{of})", outage.attempt)
}

/// The name in at most so many columns; none if that is too little of it.
fn shortened(name: &str, columns: usize) -> Option<String> {
    let n = name.chars().count();
    if n <= columns {
        return Some(name.to_owned()).filter(|name| !name.is_empty());
    }
    let beginning = || name.chars().take(columns - 1).chain(['…']).collect();
    (columns >= SHORTEST_NAME).then(beginning)
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

    fn line(progress: &Progress, silent: u64, columns: usize) -> String {
        let rate = 1.18 * 1_073_741_824.0;
        let silent = Duration::from_secs(silent);
        let streams = StreamCount::default();
        let name = "debian-13.2.0-amd64-netinst.iso";
        ProgressLine { name, progress, rate, silent, streams, is_upload: false }.within(columns)
    }

    #[test]
    fn upload_does_not_claim_to_verify() {
        for received in [500, 1000] {
            let progress = &progress(Some(1000), received, 0);
            let (rate, silent, streams) = (10.0, Duration::ZERO, StreamCount::default());
            let line = ProgressLine { name: "f", progress, rate, silent, streams, is_upload: true };
            assert!(!line.within(200).contains("verif"), "{}", line.within(200));
        }
    }

    #[test]
    fn line_has_what_fits() {
        let gib = 1 << 30;
        let running = progress(Some(10 * gib), 6_657_199_309, 6_551_000_000);
        for (columns, expected) in [
            (
                200,
                "debian-13.2.0-amd64-netinst.iso  62%  1.18 GiB/s  ETA 0:03  6.2/10.0 GiB  8/8 streams  verified 61%",
            ),
            (62, "debian-13.2.0-amd64-netinst.iso  62%  1.18 GiB/s  ETA 0:03"),
            (50, "debian-13.2.0-amd64-ne…  62%  1.18 GiB/s  ETA 0:03"),
            (36, "debian-1…  62%  1.18 GiB/s  ETA 0:03"),
            (31, "62%  1.18 GiB/s  ETA 0:03"),
            (10, "62%  1.18 GiB/s  ETA 0:03"),
        ] {
            assert_eq!(line(&running, 0, columns), expected);
        }
        for columns in 25..200 {
            assert!(line(&running, 0, columns).chars().count() <= columns);
        }
        for (progress, expected) in [
            (progress(Some(gib), gib, gib / 2), "100%  verifying 50%  1.0/1.0 GiB"),
            (progress(None, gib, 0), "1.00 GiB  1.18 GiB/s  8/8 streams  verified 0 B"),
        ] {
            let expected = format!("debian-13.2.0-amd64-netinst.iso  {expected}");
            assert_eq!(line(&progress, 0, 200), expected);
        }
    }

    /// There is no rate of what does not arrive, and no remaining time.
    #[test]
    fn outage_is_called_that() {
        let running = progress(Some(1 << 30), 1 << 29, 1 << 29);
        assert_eq!(line(&running, 12, 30), "50%  no data for 12 s");
        let rounds = |attempt, limit| {
            let mut lost = running;
            let mut outage = Outage::default();
            (outage.attempt, outage.limit) = (attempt, limit);
            lost.outage = Some(outage);
            line(&lost, 12, 45)
        };
        assert_eq!(rounds(3, Some(10)), "50%  connection lost, retrying (3 of 10)");
        assert_eq!(rounds(3, None), "debian-1…  50%  connection lost, retrying (3)");
    }
}
