//! Figures as JSON lines, for programs: the run first, then a line for each candidate.

use std::fs;
use std::path::Path;
use std::thread::available_parallelism;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::clients::{LEGACY, OLD, OURS, UNVERIFIED};
use crate::peers::Peer;
use crate::rounds::Series;
use crate::{Failure, float};

/// The magic number of tmpfs, as `statfs` reports it.
const TMPFS: i64 = 0x0102_1994;

/// One line of a file of results.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Record {
    /// The first line.
    Run(Run),
    /// What one candidate took.
    Candidate(Candidate),
}

/// What was measured, when and where.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Run {
    /// The program that measured.
    pub benchmark: String,
    /// The day in UTC, as `YYYY-MM-DD`.
    pub date: String,
    /// What kind of machine it was.
    pub machine: String,
    /// Where source and output were: `memory` (tmpfs) or `disk`.
    pub medium: String,
    /// The size of the file in bytes.
    pub size: u64,
    /// The number of streams.
    pub streams: u16,
    /// The rounds that were counted.
    pub rounds: usize,
}

/// What one candidate took.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Candidate {
    /// Its name in the table.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// The version of a peer, if it reports one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The shortest time in seconds.
    pub best: f64,
    /// The time in the middle, in seconds.
    pub median: f64,
    /// All times in seconds, the shortest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seconds: Vec<f64>,
    /// The counted runs that failed.
    pub failed: usize,
    /// The processor time of the client in seconds per GiB; of both sides, where they are one process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_cpu: Option<f64>,
    /// The processor time of the server in seconds per GiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_cpu: Option<f64>,
}

/// What a candidate is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The product, which verifies every block.
    Verified,
    /// The library without its digests.
    Unverified,
    /// The product with protocol 1.
    Legacy,
    /// An earlier build of the product.
    Old,
    /// What the machine moves at best.
    Limit,
    /// Another tool, which verifies nothing.
    Peer,
}

impl Role {
    fn of(name: &str) -> Self {
        match name {
            OURS => Self::Verified,
            UNVERIFIED => Self::Unverified,
            LEGACY => Self::Legacy,
            OLD => Self::Old,
            _ if Peer::named(name).is_some() => Self::Peer,
            _ => Self::Limit,
        }
    }
}

impl Run {
    /// A run on this machine, today, of a file in `folder`.
    ///
    /// # Errors
    /// The file system of the folder is not known.
    pub fn here(
        benchmark: &str,
        folder: &Path,
        size: u64,
        streams: u16,
        rounds: usize,
    ) -> Result<Self, Failure> {
        let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let date = now.split('T').next().unwrap_or_default().to_owned();
        let medium = if is_in_memory(folder)? { "memory" } else { "disk" };
        let (benchmark, medium) = (benchmark.to_owned(), medium.to_owned());
        Ok(Self { benchmark, date, machine: machine(), medium, size, streams, rounds })
    }
}

/// Whether `folder` is on tmpfs.
///
/// # Errors
/// The file system of the folder is not known.
pub fn is_in_memory(folder: &Path) -> Result<bool, Failure> {
    Ok(rustix::fs::statfs(folder)?.f_type == TMPFS)
}

/// This machine as a class: cores, memory, kernel, and whether it is virtual.
fn machine() -> String {
    let n_cores = available_parallelism().map_or(1, usize::from);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB"));
    let gib = kib.and_then(|kib| kib.trim().parse::<u64>().ok()).map_or(0, |kib| (kib + (1 << 19)) >> 20);
    let release = rustix::system::uname();
    let release = release.release().to_string_lossy();
    let kernel = release.splitn(3, ['.', '-']).take(2).collect::<Vec<_>>().join(".");
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let kind = if cpu.contains(" hypervisor") { ", virtual machine" } else { "" };
    format!("{n_cores} cores, {gib} GiB, Linux {kernel}{kind}")
}

/// The lines of a run and of its candidates that have a time.
pub fn records(run: &Run, series: &[Series]) -> Vec<Record> {
    let candidates = series.iter().filter_map(|one| candidate(run, one)).map(Record::Candidate);
    [Record::Run(run.clone())].into_iter().chain(candidates).collect()
}

fn candidate(run: &Run, series: &Series) -> Option<Candidate> {
    let per_gib = |seconds: f64| seconds / (float(run.size) / float(1 << 30));
    Some(Candidate {
        name: series.name.clone(),
        role: Role::of(&series.name),
        version: Peer::named(&series.name).and_then(|peer| peer.version()),
        best: series.best()?,
        median: series.median()?,
        seconds: series.seconds(),
        failed: series.n_failed,
        client_cpu: series.client_cpu().map(per_gib),
        server_cpu: series.server_cpu().map(per_gib),
    })
}

/// Writes a file of results.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, records: &[Record]) -> Result<(), Failure> {
    let mut text = String::new();
    for record in records {
        text.push_str(&serde_json::to_string(record)?);
        text.push('\n');
    }
    Ok(fs::write(path, text)?)
}

/// Reads a file of results: the run, and its candidates.
///
/// # Errors
/// The file cannot be read, or a line is invalid.
pub fn read(path: &Path) -> Result<(Run, Vec<Candidate>), Failure> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let (mut run, mut candidates) = (None, Vec::new());
    for (at, line) in text.lines().enumerate() {
        let record = serde_json::from_str(line)
            .map_err(|error| format!("{}, line {}: {error}", path.display(), at + 1))?;
        match record {
            Record::Run(found) => run = Some(found),
            Record::Candidate(candidate) => candidates.push(candidate),
        }
    }
    Ok((run.ok_or_else(|| format!("{} has no run", path.display()))?, candidates))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rounds::Sample;
    use std::time::Duration;

    #[test]
    fn written_results_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let run = Run::here("bench-loopback", folder.path(), 2 << 30, 8, 1).unwrap();
        let mut ours = Series::new(OURS);
        let second = Duration::from_secs(1);
        ours.add(Sample { elapsed: second, client: Some(second), server: None });
        let series = [ours, Series::new("never ran")];
        let path = folder.path().join("results");
        write(&path, &records(&run, &series)).unwrap();
        let (read_run, candidates) = read(&path).unwrap();
        assert_eq!(read_run, run);
        let [ours] = candidates.as_slice() else { panic!("{candidates:?}") };
        assert_eq!(
            (ours.role, ours.best, ours.client_cpu, ours.server_cpu),
            (Role::Verified, 1.0, Some(0.5), None)
        );
    }

    #[test]
    fn recorded_results_are_valid() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("results");
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let (_, candidates) = read(&path).unwrap();
            assert!(candidates.iter().any(|one| one.role == Role::Verified), "{}", path.display());
        }
    }
}
