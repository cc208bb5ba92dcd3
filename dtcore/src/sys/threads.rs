//! How many threads there may be.

use std::sync::Mutex;
use std::thread::{Builder, scope, sleep};
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};

/// A limit of so many threads is no limit for this crate.
const MANY: u64 = 1024;

/// How long the system may take to give back the place of a thread that has ended: mostly microseconds.
const FREED_WITHIN: Duration = Duration::from_secs(1);

/// How many of `wanted` threads this process can start now, by the limits of its user (`ulimit -u`) and its container.
///
/// A runtime of tokio panics where it cannot start its threads; ask this before.
///
/// ```
/// assert_eq!(dtcore::available_threads(2), 2);
/// ```
pub fn available_threads(wanted: usize) -> usize {
    // To start threads takes longer than to ask.
    if !are_limited() {
        return wanted;
    }
    let gate = Mutex::new(());
    let n_before = n_running();
    let n = scope(|scope| {
        // Those that were started wait here until the last one is.
        let closed = gate.lock();
        let start = |_: &usize| Builder::new().spawn_scoped(scope, || drop(gate.lock())).is_ok();
        let n = (0..wanted).take_while(start).count();
        drop(closed);
        n
    });
    // A thread that is joined still counts for a moment.
    let begun = Instant::now();
    while n_running() > n_before && begun.elapsed() < FREED_WITHIN {
        sleep(Duration::from_micros(100));
    }
    n
}

/// How many threads of this process the system counts.
fn n_running() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

/// Whether there is a limit that matters.
fn are_limited() -> bool {
    let is_low = |limit: u64| limit < MANY;
    getrlimit(Resource::Nproc).current.is_some_and(is_low)
        || std::fs::read_to_string("/sys/fs/cgroup/pids.max")
            .is_ok_and(|limit| limit.trim().parse().is_ok_and(is_low))
}
