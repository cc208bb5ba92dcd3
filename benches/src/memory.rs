//! The memory of a process, as the system reports it.

use std::fs;
use std::thread;
use std::time::Duration;

/// A process's memory at one moment, in KiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Memory {
    /// Its own: heap, stacks, and pages of its files that it changed for itself alone (`RssAnon`).
    pub anonymous: u64,
    /// Pages of files and of shared memory that it has mapped (`RssFile` and `RssShmem`): the program, the output.
    pub mapped: u64,
    /// The most that both together ever were (`VmHWM`).
    pub peak: u64,
}

impl Memory {
    /// That of a process, while it runs.
    pub fn of(process: u32) -> Option<Self> {
        Self::read(&fs::read_to_string(format!("/proc/{process}/status")).ok()?)
    }

    /// From the text of its `status`.
    pub fn read(status: &str) -> Option<Self> {
        let field = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.trim().strip_suffix("kB")?.trim().parse().ok()
        };
        Some(Self {
            anonymous: field("RssAnon")?,
            mapped: field("RssFile")?.checked_add(field("RssShmem")?)?,
            peak: field("VmHWM")?,
        })
    }

    /// The larger of each.
    pub fn max(self, other: Self) -> Self {
        Self {
            anonymous: self.anonymous.max(other.anonymous),
            mapped: self.mapped.max(other.mapped),
            peak: self.peak.max(other.peak),
        }
    }
}

/// The peaks of a process that is sampled every 10 ms while `runs` returns `true`.
pub fn sample(process: u32, mut runs: impl FnMut() -> bool) -> Memory {
    let mut peak = Memory::default();
    while runs() {
        peak = peak.max(Memory::of(process).unwrap_or_default());
        thread::sleep(Duration::from_millis(10));
    }
    peak
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_is_read() {
        let text = "VmPeak:\t 9 kB\nVmHWM:\t    70 kB\nRssAnon:\t      30 kB\nRssFile:\t  20 kB\nRssShmem:\t   5 kB\n";
        assert_eq!(Memory::read(text), Some(Memory { anonymous: 30, mapped: 25, peak: 70 }));
        assert_eq!(Memory::read("VmHWM: 7 kB"), None);
        assert!(Memory::of(std::process::id()).is_some_and(|memory| memory.anonymous > 0));
    }
}
