//! Shared pieces of the benchmark programs: processes under a stopwatch, servers that end with their owner, rounds.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::error::Error;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What a benchmark may fail with.
pub type Failure = Box<dyn Error + Send + Sync>;

/// Fills `path` with `len` bytes that do not compress.
///
/// # Errors
/// What the system says of the random source or of the file.
pub fn random_file(path: &Path, len: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    io::copy(&mut File::open("/dev/urandom")?.take(len), &mut file)?;
    Ok(())
}

/// The product's program `name`, built beside this benchmark.
///
/// # Errors
/// If it was not built: the message says how to.
pub fn program(name: &str) -> Result<PathBuf, Failure> {
    let path = std::env::current_exe()?.with_file_name(name);
    if path.exists() {
        Ok(path)
    } else {
        Err(format!("{name} is missing: run cargo build --release first").into())
    }
}

/// Runs a command to its end and returns how long the whole process took.
///
/// # Errors
/// If it cannot be started or does not succeed.
pub fn time(command: &mut Command) -> Result<Duration, Failure> {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let begun = Instant::now();
    let status = command.status()?;
    let elapsed = begun.elapsed();
    if status.success() { Ok(elapsed) } else { Err(format!("{command:?} ended with {status}").into()) }
}

/// A `dtserver` on a port of its own choice, ended when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Where it listens, on the loopback address.
    pub address: String,
}

impl Server {
    /// Serves the files below `root`.
    ///
    /// # Errors
    /// If it cannot be started, or does not say that it listens.
    pub fn start(root: &Path) -> Result<Self, Failure> {
        let mut command = Command::new(program("dtserver")?);
        command.arg("--bind").arg("127.0.0.1").arg("--root").arg(root).arg("0");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let said = line.strip_prefix("listening on ").and_then(|rest| rest.split(',').next());
        let Some(address) = said.map(str::to_owned) else {
            child.kill()?;
            return Err(format!("dtserver did not start: {line:?}").into());
        };
        Ok(Self { child, address })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is reaped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The times of one candidate over all rounds.
#[derive(Clone, Debug)]
pub struct Series {
    /// What was timed.
    pub name: String,
    times: Vec<Duration>,
}

impl Series {
    /// The shortest time.
    pub fn best(&self) -> f64 {
        self.sorted().first().map_or(f64::NAN, Duration::as_secs_f64)
    }

    /// The time in the middle.
    pub fn median(&self) -> f64 {
        let sorted = self.sorted();
        sorted.get(sorted.len() / 2).map_or(f64::NAN, Duration::as_secs_f64)
    }

    fn sorted(&self) -> Vec<Duration> {
        let mut times = self.times.clone();
        times.sort();
        times
    }
}

/// A candidate: its name and what to do for one timed run.
pub type Candidate<'a> = (&'a str, Box<dyn FnMut() -> Result<Duration, Failure> + 'a>);

/// Runs the candidates in turn, `rounds` times after one round that is not counted.
///
/// # Errors
/// The first failure of any candidate.
pub fn alternate(rounds: usize, candidates: Vec<Candidate<'_>>) -> Result<Vec<Series>, Failure> {
    let mut candidates = candidates;
    let mut series: Vec<Series> =
        candidates.iter().map(|(name, _)| Series { name: (*name).to_owned(), times: Vec::new() }).collect();
    for round in 0..=rounds {
        for ((_, run), series) in candidates.iter_mut().zip(&mut series) {
            let elapsed = run()?;
            if round > 0 {
                series.times.push(elapsed);
            }
        }
        print!(".");
        io::stdout().flush()?;
    }
    println!();
    Ok(series)
}

/// Prints one row for each series, with its ratio to the first.
pub fn print(series: &[Series]) {
    println!("| what | best s | median s | best / first's best | median / first's median |");
    println!("|---|---|---|---|---|");
    let Some(first) = series.first() else { return };
    for one in series {
        let (best, median) = (one.best(), one.median());
        println!(
            "| {} | {best:.3} | {median:.3} | {:.2} | {:.2} |",
            one.name,
            best / first.best(),
            median / first.median()
        );
    }
}
