//! How many threads there may be.

use std::sync::Mutex;
use std::thread::{Builder, scope};

/// How many of `wanted` threads this process can start now, by the limits of its user (`ulimit -u`) and its container.
///
/// A runtime of tokio panics where it cannot start its threads; ask this before.
///
/// ```
/// assert_eq!(dtcore::available_threads(2), 2);
/// ```
pub fn available_threads(wanted: usize) -> usize {
    let gate = Mutex::new(());
    scope(|scope| {
        // Those that were started wait here until the last one is.
        let closed = gate.lock();
        let start = |_: &usize| Builder::new().spawn_scoped(scope, || drop(gate.lock())).is_ok();
        let n = (0..wanted).take_while(start).count();
        drop(closed);
        n
    })
}
