//! Processor time of processes, as the system counts it.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use rustix::param::clock_ticks_per_second;

/// The processor time of a process, of all of its threads, and of its children that have ended and were waited for.
///
/// A process that has ended is known until its parent has waited for it.
pub fn of_process(process: u32) -> Option<Duration> {
    Some(Stat::of(process)?.time())
}

/// The processor time of a process and all of its descendants, for servers that work in child processes.
pub fn of_tree(root: u32) -> Option<Duration> {
    let mut rest: BTreeMap<u32, Stat> = fs::read_dir("/proc")
        .ok()?
        .flatten()
        .filter_map(|entry| {
            let process = entry.file_name().to_str()?.parse().ok()?;
            Some((process, Stat::of(process)?))
        })
        .collect();
    let mut time = rest.remove(&root)?.time();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        let children: Vec<u32> =
            rest.iter().filter(|(_, stat)| stat.parent == parent).map(|(process, _)| *process).collect();
        time += children.iter().filter_map(|child| rest.remove(child)).map(Stat::time).sum::<Duration>();
        parents.extend(children);
    }
    Some(time)
}

/// A line of `/proc/PID/stat`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stat {
    parent: u32,
    /// User and system time, its own and that of children that were waited for.
    ticks: u64,
}

impl Stat {
    fn of(process: u32) -> Option<Self> {
        Self::read(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
    }

    fn read(text: &str) -> Option<Self> {
        // The name before it may contain anything.
        let (_, fields) = text.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let parent = fields.get(1)?.parse().ok()?;
        let ticks = fields.get(11..15)?.iter().map(|field| field.parse::<u64>().ok()).sum::<Option<u64>>()?;
        Some(Self { parent, ticks })
    }

    fn time(self) -> Duration {
        Duration::from_millis(self.ticks * 1000 / clock_ticks_per_second().max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::time::Instant;

    #[test]
    fn stat_is_read_whatever_the_name_is() {
        let text = "7 (a) b (c) S 5 7 7 0 -1 4194304 100 0 0 0 11 12 13 14 20 0 1 0 99";
        assert_eq!(Stat::read(text), Some(Stat { parent: 5, ticks: 50 }));
        assert_eq!(Stat::read("7 (a) S 5"), None);
    }

    #[test]
    fn tree_includes_children() {
        let busy = "i=0; while [ $i -lt 4000000 ]; do i=$((i+1)); done";
        let mut child = Command::new("sh").args(["-c", &format!("sh -c '{busy}' & wait")]).spawn().unwrap();
        let begun = Instant::now();
        while of_tree(child.id()).is_none_or(|time| time < Duration::from_millis(50)) {
            assert!(begun.elapsed() < Duration::from_secs(30), "the child's time is not seen");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(of_process(child.id()).is_some_and(|own| own < Duration::from_millis(50)));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
