//! Carries the bytes of one connection both ways, and does to them what its fate says.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::fate::{Carries, Ending, Fate};
use super::frames::Tracker;
use super::{Shared, TICK};
use crate::sockets::is_pause;

/// What others may do to a connection that is being carried.
#[derive(Debug, Default)]
pub(super) struct Link {
    dead: AtomicBool,
    with_reset: AtomicBool,
    stalled: AtomicBool,
}

impl Link {
    /// Ends it with RST to both sides.
    pub(super) fn reset(&self) {
        self.with_reset.store(true, Ordering::SeqCst);
        self.dead.store(true, Ordering::SeqCst);
    }

    fn close(&self) {
        self.dead.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }
}

/// Lets so many bytes per second through, of all callers together.
#[derive(Debug, Default)]
pub(super) struct Pace {
    next: Mutex<Option<Instant>>,
}

impl Pace {
    fn take(&self, n: usize, rate: u64) {
        let now = Instant::now();
        let nanos = u128::try_from(n).expect("it fits") * 1_000_000_000 / u128::from(rate.max(1));
        let mut next = self.next.lock().expect("no holder panics");
        let at = next.map_or(now, |next| next.max(now));
        *next = Some(at + Duration::from_nanos(u64::try_from(nanos).expect("it fits")));
        drop(next);
        thread::sleep(at - now);
    }
}

/// A connection with both its sides.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) client: TcpStream,
    pub(super) server: TcpStream,
    pub(super) link: Arc<Link>,
    pub(super) shared: Arc<Shared>,
    pub(super) carries: Carries,
    pub(super) fate: Fate,
}

impl Pair {
    /// Sends `answered` to the client, and carries all that follows until the end.
    pub(super) fn pump(self, answered: Vec<u8>) {
        let pair = Arc::new(self);
        let upwards = Arc::clone(&pair);
        let thread = thread::spawn(move || upwards.to_the_server());
        pair.to_the_client(answered);
        // The last handle closes the sockets, with what the link says.
        let _ = thread.join();
        if pair.link.with_reset.load(Ordering::SeqCst) {
            for side in [&pair.client, &pair.server] {
                // A connection that has ended already has no use for it.
                let _ = rustix::net::sockopt::set_socket_linger(side, Some(Duration::ZERO));
            }
        }
    }

    /// The rate of all streams together, which requests do not count for.
    fn rate(&self) -> Option<u64> {
        if self.is_stream() { self.shared.rate() } else { None }
    }

    fn is_stream(&self) -> bool {
        self.carries != Carries::Request
    }

    fn is_over(&self) -> bool {
        self.link.is_dead() || self.shared.is_stopped()
    }

    /// The next bytes; `None` at the end, of either side's making.
    fn read<'a>(&self, mut from: &TcpStream, buffer: &'a mut [u8]) -> Option<&'a mut [u8]> {
        while !self.is_over() {
            if self.link.stalled.load(Ordering::SeqCst) {
                thread::sleep(TICK);
                continue;
            }
            match from.read(buffer) {
                Ok(0) => return None,
                Ok(n) => return Some(&mut buffer[..n]),
                Err(error) if is_pause(&error) => {}
                Err(_) => {
                    self.link.reset();
                    return None;
                }
            }
        }
        None
    }

    /// Writes all of it; false when the connection has ended.
    fn write(&self, mut to: &TcpStream, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() && !self.is_over() {
            match to.write(bytes) {
                Ok(n) => bytes = &bytes[n..],
                Err(error) if is_pause(&error) => {}
                Err(_) => {
                    self.link.reset();
                    return false;
                }
            }
        }
        bytes.is_empty()
    }

    fn to_the_server(&self) {
        let mut tracker = match self.carries {
            Carries::Stream | Carries::Upgraded => Some(Tracker::of_hello()),
            Carries::First => Some(Tracker::of_frames()),
            Carries::Request | Carries::Upload | Carries::Legacy => None,
        };
        let mut buffer = vec![0; 64 << 10];
        while let Some(bytes) = self.read(&self.client, &mut buffer) {
            if let Some(tracker) = &mut tracker {
                tracker.pass(bytes, &self.fate, &self.shared.common);
            }
            if !self.write(&self.server, bytes) {
                return;
            }
        }
        if !self.is_over() {
            let _ = self.server.shutdown(Shutdown::Write);
        }
    }

    fn to_the_client(self: &Arc<Self>, answered: Vec<u8>) {
        let late = (!self.fate.delay.is_zero()).then(|| Late::start(self, self.fate.delay));
        let frames = match self.carries {
            Carries::First | Carries::Stream | Carries::Upgraded => Some(Tracker::of_frames()),
            Carries::Request | Carries::Upload | Carries::Legacy => None,
        };
        let mut passage = Passage { passed: 0, frames, own: Pace::default(), pair: self };
        let mut buffer = vec![0; 256 << 10];
        let mut waiting = answered;
        loop {
            let limit = passage.limit(self.rate(), buffer.len());
            if limit == 0 {
                break;
            }
            let bytes = if waiting.is_empty() {
                let Some(bytes) = self.read(&self.server, &mut buffer[..limit]) else { break };
                bytes.to_vec()
            } else {
                let rest = waiting.split_off(limit.min(waiting.len()));
                std::mem::replace(&mut waiting, rest)
            };
            let bytes = passage.pass(bytes, self.rate());
            let n = bytes.len();
            let sent = match &late {
                Some(late) => late.send(bytes),
                None => self.write(&self.client, &bytes),
            };
            if !sent {
                break;
            }
            if self.is_stream() {
                self.shared.account(n);
            }
        }
        if let Some(late) = late {
            late.finish();
        }
        if !self.is_over() {
            self.end(passage.passed);
        }
    }

    fn end(&self, passed: u64) {
        let ending = self.fate.end.filter(|(after, _)| *after == passed).map(|(_, ending)| ending);
        match ending {
            Some(Ending::Reset) => self.link.reset(),
            Some(Ending::Stall) => {
                self.link.stalled.store(true, Ordering::SeqCst);
                while !self.is_over() {
                    thread::sleep(TICK);
                }
            }
            Some(Ending::Truncate) => {
                let _ = self.client.shutdown(Shutdown::Write);
                let mut buffer = vec![0; 64 << 10];
                while self.read(&self.server, &mut buffer).is_some() {}
                self.link.close();
            }
            Some(Ending::Close) => {
                for side in [&self.client, &self.server] {
                    let _ = side.shutdown(Shutdown::Write);
                }
                self.link.close();
            }
            // The server said all it had to say; the client may still be talking.
            None => {
                let _ = self.client.shutdown(Shutdown::Write);
            }
        }
    }
}

/// How many bytes have passed to the client, and where they are in the frames.
#[derive(Debug)]
struct Passage<'a> {
    passed: u64,
    frames: Option<Tracker>,
    own: Pace,
    pair: &'a Pair,
}

impl Passage<'_> {
    /// How many bytes may be read next: none after the end, and little at a time where the rate is low.
    fn limit(&self, of_all: Option<u64>, most: usize) -> usize {
        let fate = &self.pair.fate;
        let rates = [fate.rate, of_all].into_iter().flatten().map(|rate| (rate / 50).max(1));
        let left = fate.end.map(|(after, _)| after - self.passed);
        let most = u64::try_from(most).expect("it fits");
        usize::try_from(rates.chain(left).fold(most, u64::min)).expect("at most what there was")
    }

    /// Takes the time and does the damage.
    fn pass(&mut self, mut bytes: Vec<u8>, of_all: Option<u64>) -> Vec<u8> {
        let (fate, shared) = (&self.pair.fate, &self.pair.shared);
        if let Some(rate) = fate.rate {
            self.own.take(bytes.len(), rate);
        }
        if let Some(rate) = of_all {
            shared.pace.take(bytes.len(), rate);
        }
        for at in fate.flips.iter().filter_map(|at| at.checked_sub(self.passed)) {
            if let Some(byte) = usize::try_from(at).ok().and_then(|at| bytes.get_mut(at)) {
                *byte ^= 0x10;
            }
        }
        if let Some(frames) = &mut self.frames {
            frames.pass(&mut bytes, fate, &shared.common);
        }
        self.passed += u64::try_from(bytes.len()).expect("it fits");
        bytes
    }
}

/// Bytes on their way, each piece with the time of its arrival.
#[derive(Debug)]
struct Late {
    queue: SyncSender<(Instant, Vec<u8>)>,
    delay: Duration,
    thread: thread::JoinHandle<()>,
}

impl Late {
    fn start(pair: &Arc<Pair>, delay: Duration) -> Self {
        let (queue, arriving): (_, Receiver<(Instant, Vec<u8>)>) = sync_channel(1024);
        let pair = Arc::clone(pair);
        let thread = thread::spawn(move || {
            for (at, bytes) in arriving {
                thread::sleep(at.saturating_duration_since(Instant::now()));
                if !pair.write(&pair.client, &bytes) {
                    return;
                }
            }
        });
        Self { queue, delay, thread }
    }

    fn send(&self, bytes: Vec<u8>) -> bool {
        self.queue.send((Instant::now() + self.delay, bytes)).is_ok()
    }

    fn finish(self) {
        drop(self.queue);
        let _ = self.thread.join();
    }
}
