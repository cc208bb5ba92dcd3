//! How fast bytes come on a stream: a smooth rate for forecasts, a peak for the window, the last second for the watchdog.

use std::time::Duration;

/// Longer than anything is waited for; what a forecast says that has no rate to go by.
pub(super) const FOREVER: Duration = Duration::from_secs(1 << 32);

/// The shortest period over which a rate is taken: below it, a single read of a full socket buffer looks like a peak.
const PERIOD: Duration = Duration::from_millis(20);
/// How long the smooth rate remembers, unless the round trip is longer.
const MEMORY: Duration = Duration::from_millis(100);

/// The bytes that come in `time` at `rate` bytes a second.
pub(super) fn bytes_in(time: Duration, rate: u64) -> u64 {
    narrow(time.as_micros().saturating_mul(u128::from(rate)) / MICROS)
}

/// How long `bytes` take at `rate` bytes a second.
pub(super) fn time_for(bytes: u64, rate: u64) -> Duration {
    let micros = (u128::from(bytes) * MICROS).checked_div(u128::from(rate));
    micros.map_or(FOREVER, |micros| Duration::from_micros(narrow(micros)).min(FOREVER))
}

/// The rate at which `bytes` received in `time`, in bytes a second.
fn rate_of(bytes: u64, time: Duration) -> u64 {
    narrow(u128::from(bytes) * MICROS / time.as_micros().max(1))
}

fn narrow(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

const MICROS: u128 = 1_000_000;

/// The rate of one stream, measured only while something is expected on it.
#[derive(Debug)]
pub(super) struct ThroughputEstimator {
    smooth: Option<u64>,
    peak: u64,
    period: Duration,
    memory: Duration,
    /// The running period: when it began (perhaps in the future, when the first byte can be there), and what received.
    /// There is none while nothing is expected.
    since: Option<Duration>,
    bytes: u64,
}

impl ThroughputEstimator {
    /// A throughput for a path with that round-trip time, which knows nothing yet.
    pub(super) fn new(rtt: Duration) -> Self {
        let (period, memory) = (rtt.max(PERIOD), rtt.max(MEMORY));
        Self { smooth: None, peak: 0, period, memory, since: None, bytes: 0 }
    }

    /// Bytes can be expected from `at` on.
    pub(super) fn begin(&mut self, at: Duration) {
        (self.since, self.bytes) = (Some(at), 0);
    }

    /// `n` more bytes received.
    pub(super) fn add(&mut self, n: u64, now: Duration) {
        self.since = Some(self.since.map_or(now, |since| since.min(now)));
        self.bytes = self.bytes.saturating_add(n);
        let elapsed = self.elapsed(now);
        if elapsed >= self.period {
            self.peak = rate_of(self.bytes, elapsed).max(self.peak - self.peak / 8);
            self.fold(now);
        }
    }

    /// No more bytes are expected.
    pub(super) fn end(&mut self, now: Duration) {
        if self.bytes > 0 {
            self.fold(now);
        }
        self.since = None;
    }

    /// Another connection on the same path: what was measured stays the best forecast for it.
    pub(super) fn inherit(&mut self, former: &Self) {
        self.smooth = former.smooth;
    }

    fn fold(&mut self, now: Duration) {
        // A read of what had gathered says nothing about a time as short as that.
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

    /// The running period, weighed against `rate` by its length: silence makes it fall without any call.
    fn mixed(&self, rate: u64, elapsed: Duration) -> u64 {
        let (memory, elapsed) = (self.memory.as_micros(), elapsed.as_micros());
        narrow((u128::from(rate) * memory + u128::from(self.bytes) * MICROS) / (memory + elapsed))
    }

    /// Whether a rate was measured.
    pub(super) fn is_known(&self) -> bool {
        self.smooth.is_some()
    }

    /// The rate to reckon with, in bytes a second; a stream that is not known yet is taken for one at `guess`.
    pub(super) fn rate(&self, now: Duration, guess: u64) -> u64 {
        self.mixed(self.smooth.unwrap_or(guess), self.elapsed(now))
    }

    /// The highest rate of late over about a round trip: it rises at once and falls slowly.
    pub(super) fn peak(&self) -> u64 {
        self.peak
    }

    /// How long it is until bytes can be expected.
    pub(super) fn wait(&self, now: Duration) -> Duration {
        self.since.map_or(Duration::ZERO, |since| since.saturating_sub(now))
    }
}

/// What received in the last second, in slots that begin at the same moments for all streams.
#[derive(Debug, Default)]
pub(super) struct LastSecond {
    slots: [u64; N_SLOTS],
    /// The number of the newest slot.
    newest: u64,
}

/// Ten that are over and the running one.
const N_SLOTS: usize = 11;
const SLOT_MILLIS: u128 = 100;

impl LastSecond {
    /// `n` more bytes received.
    pub(super) fn add(&mut self, n: u64, now: Duration) {
        self.advance(now);
        if let Some(slot) = self.slots.get_mut(slot_of(self.newest)) {
            *slot = slot.saturating_add(n);
        }
    }

    /// The bytes of the last second and what of the running slot is over.
    pub(super) fn bytes(&mut self, now: Duration) -> u64 {
        self.advance(now);
        self.slots.iter().fold(0, |sum: u64, slot| sum.saturating_add(*slot))
    }

    fn advance(&mut self, now: Duration) {
        let newest = narrow(now.as_millis() / SLOT_MILLIS).max(self.newest);
        for passed in (self.newest + 1..=newest).take(N_SLOTS) {
            if let Some(slot) = self.slots.get_mut(slot_of(passed)) {
                *slot = 0;
            }
        }
        self.newest = newest;
    }
}

fn slot_of(number: u64) -> usize {
    usize::try_from(number).unwrap_or(0) % N_SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn bytes_and_times_and_rates_agree() {
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
    fn a_steady_stream_has_its_rate() {
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
    fn silence_lowers_the_forecast_and_idleness_does_not() {
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
    fn an_unknown_stream_is_taken_for_the_guess_until_it_is_late() {
        let mut throughput = ThroughputEstimator::new(ms(10));
        throughput.begin(ms(50));
        assert!(!throughput.is_known());
        assert_eq!(throughput.rate(ms(40), 1_000), 1_000);
        assert_eq!(throughput.rate(ms(150), 1_000), 500);
    }

    #[test]
    fn the_last_second_forgets() {
        let mut last = LastSecond::default();
        for tenth in 0..30 {
            last.add(10, ms(tenth * 100));
        }
        assert_eq!(last.bytes(ms(2_950)), 110);
        assert_eq!(last.bytes(ms(3_450)), 60);
        assert_eq!(last.bytes(ms(9_000)), 0);
    }
}
