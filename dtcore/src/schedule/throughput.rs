//! How fast data arrives on a stream: a smooth rate for forecasts, a peak for the window, the last second for the watchdog.

use std::time::Duration;

use crate::num::to_usize;

/// Longer than any wait: the forecast for a rate of 0.
pub(super) const FOREVER: Duration = Duration::from_secs(1 << 32);

/// The shortest period over which a rate is measured: below it, one read of a full socket buffer looks like a peak.
const PERIOD: Duration = Duration::from_millis(20);
/// How long the smooth rate remembers, unless the round trip is longer.
const MEMORY: Duration = Duration::from_millis(100);

/// The bytes that arrive in `time` at `rate` bytes a second.
pub(super) fn bytes_in(time: Duration, rate: u64) -> u64 {
    clamp(time.as_micros() * u128::from(rate) / MICROS)
}

/// How long `bytes` take at `rate` bytes a second; at most [`FOREVER`].
pub(super) fn time_for(bytes: u64, rate: u64) -> Duration {
    let micros = (u128::from(bytes) * MICROS).checked_div(u128::from(rate));
    micros.map_or(FOREVER, |micros| Duration::from_micros(clamp(micros)).min(FOREVER))
}

/// The rate at which `bytes` arrived in `time`, in bytes a second.
fn rate_of(bytes: u64, time: Duration) -> u64 {
    clamp(u128::from(bytes) * MICROS / time.as_micros().max(1))
}

fn clamp(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

const MICROS: u128 = 1_000_000;

/// The rate of one stream, measured only while data is expected on it.
#[derive(Debug)]
pub(super) struct ThroughputEstimator {
    smooth: Option<u64>,
    peak: u64,
    period: Duration,
    memory: Duration,
    /// When the current period began, or will begin when the first byte can arrive; `None` while no data is expected.
    since: Option<Duration>,
    /// The bytes of the current period.
    bytes: u64,
}

impl ThroughputEstimator {
    /// An estimator for a path with that round-trip time.
    pub(super) fn new(rtt: Duration) -> Self {
        let (period, memory) = (rtt.max(PERIOD), rtt.max(MEMORY));
        Self { smooth: None, peak: 0, period, memory, since: None, bytes: 0 }
    }

    /// Data can be expected from `at` on.
    pub(super) fn begin(&mut self, at: Duration) {
        (self.since, self.bytes) = (Some(at), 0);
    }

    /// `n` bytes arrived.
    pub(super) fn add(&mut self, n: u64, now: Duration) {
        self.since = Some(self.since.map_or(now, |since| since.min(now)));
        self.bytes += n;
        let elapsed = self.elapsed(now);
        if elapsed >= self.period {
            self.peak = rate_of(self.bytes, elapsed).max(self.peak - self.peak / 8);
            self.fold(now);
        }
    }

    /// No more data is expected.
    pub(super) fn end(&mut self, now: Duration) {
        if self.bytes > 0 {
            self.fold(now);
        }
        self.since = None;
    }

    /// Takes over the rate of a former connection on the same path, which is the best forecast for this one.
    pub(super) fn inherit(&mut self, former: &Self) {
        self.smooth = former.smooth;
    }

    fn fold(&mut self, now: Duration) {
        // Data that was waiting in the socket buffer says nothing about a shorter time.
        let elapsed = self.elapsed(now).max(Duration::from_millis(1));
        self.smooth = Some(match self.smooth {
            Some(smooth) => self.mixed(smooth, elapsed),
            None => rate_of(self.bytes, elapsed),
        });
        (self.since, self.bytes) = (Some(now), 0);
    }

    fn elapsed(&self, now: Duration) -> Duration {
        self.since.map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }

    /// The current period mixed into `rate`, weighted by its length, so that silence lowers the rate without any call.
    fn mixed(&self, rate: u64, elapsed: Duration) -> u64 {
        let (memory, elapsed) = (self.memory.as_micros(), elapsed.as_micros());
        clamp((u128::from(rate) * memory + u128::from(self.bytes) * MICROS) / (memory + elapsed))
    }

    /// Whether a rate was measured.
    pub(super) fn is_measured(&self) -> bool {
        self.smooth.is_some()
    }

    /// The expected rate in bytes a second; that of a stream that was not measured is `guess` until it is late.
    pub(super) fn rate(&self, now: Duration, guess: u64) -> u64 {
        self.mixed(self.smooth.unwrap_or(guess), self.elapsed(now))
    }

    /// The highest recent rate over about a round trip: it rises at once and falls slowly.
    pub(super) fn peak(&self) -> u64 {
        self.peak
    }

    /// The time until data can be expected.
    pub(super) fn wait(&self, now: Duration) -> Duration {
        self.since.map_or(Duration::ZERO, |since| since.saturating_sub(now))
    }
}

/// The bytes that arrived in the last second, in slots that begin at the same times for all streams.
#[derive(Debug, Default)]
pub(super) struct LastSecond {
    slots: [u64; N_SLOTS],
    /// The number of the current slot.
    newest: u64,
}

/// Ten complete slots and the current one.
const N_SLOTS: usize = 11;
const SLOT_MILLIS: u128 = 100;

impl LastSecond {
    /// `n` bytes arrived.
    pub(super) fn add(&mut self, n: u64, now: Duration) {
        self.advance(now);
        if let Some(slot) = self.slots.get_mut(slot_of(self.newest)) {
            *slot += n;
        }
    }

    /// The bytes of the last second and of the current slot so far.
    pub(super) fn bytes(&mut self, now: Duration) -> u64 {
        self.advance(now);
        self.slots.iter().sum()
    }

    fn advance(&mut self, now: Duration) {
        let newest = clamp(now.as_millis() / SLOT_MILLIS).max(self.newest);
        for passed in (self.newest + 1..=newest).take(N_SLOTS) {
            if let Some(slot) = self.slots.get_mut(slot_of(passed)) {
                *slot = 0;
            }
        }
        self.newest = newest;
    }
}

fn slot_of(number: u64) -> usize {
    to_usize(number) % N_SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn bytes_times_and_rates_agree() {
        for (bytes, time, rate) in
            [(1_000, ms(1_000), 1_000), (500, ms(500), 1_000), (1 << 40, ms(1 << 20), (1 << 20) * 1_000)]
        {
            assert_eq!(bytes_in(time, rate), bytes);
            assert_eq!(time_for(bytes, rate), time);
            assert_eq!(rate_of(bytes, time), rate);
        }
        assert_eq!(time_for(1, 0), FOREVER);
        assert_eq!(time_for(u64::MAX, 1), FOREVER);
    }

    #[test]
    fn rate_and_peak_of_a_steady_stream_are_its_rate() {
        let mut throughput = ThroughputEstimator::new(ms(10));
        throughput.begin(ms(10));
        for millis in 11..1_011 {
            throughput.add(5_000, ms(millis));
        }
        assert!(
            (4_900_000..=5_300_000).contains(&throughput.rate(ms(1_010), 0)),
            "{}",
            throughput.rate(ms(1_010), 0)
        );
        assert!((4_900_000..=5_300_000).contains(&throughput.peak()));
    }

    #[test]
    fn silence_lowers_the_rate_and_idle_time_does_not() {
        let mut throughput = ThroughputEstimator::new(ms(10));
        throughput.begin(ms(0));
        for millis in 1..=200 {
            throughput.add(1_000, ms(millis));
        }
        let before = throughput.rate(ms(200), 0);
        assert!(throughput.rate(ms(500), 0) * 3 < before);
        throughput.end(ms(200));
        let idle = throughput.rate(ms(5_000), 0);
        throughput.begin(ms(5_010));
        assert_eq!(idle, throughput.rate(ms(5_010), 0));
        assert!(throughput.rate(ms(5_010), 0) * 10 > before * 9);
    }

    #[test]
    fn unmeasured_stream_has_the_guessed_rate_until_it_is_late() {
        let mut throughput = ThroughputEstimator::new(ms(10));
        throughput.begin(ms(50));
        assert!(!throughput.is_measured());
        assert_eq!(throughput.rate(ms(40), 1_000), 1_000);
        assert_eq!(throughput.rate(ms(150), 1_000), 500);
    }

    #[test]
    fn bytes_older_than_a_second_are_forgotten() {
        let mut last = LastSecond::default();
        for tenth in 0..30 {
            last.add(10, ms(tenth * 100));
        }
        assert_eq!(last.bytes(ms(2_950)), 110);
        assert_eq!(last.bytes(ms(3_450)), 60);
        assert_eq!(last.bytes(ms(9_000)), 0);
    }
}
