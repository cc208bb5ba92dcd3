//! Processes under a stopwatch, with a limit to their time, and where they are found.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use crate::Failure;
use crate::cpu;
use crate::rounds::Sample;

/// The program `name`, if a folder of `PATH` has it, or one that only root's `PATH` leads to on many systems.
pub fn on_path(name: &str) -> Option<PathBuf> {
    all_on_path(name).into_iter().next()
}

/// All programs of that name, in the order of `PATH`.
pub fn all_on_path(name: &str) -> Vec<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&folders).chain([PathBuf::from("/usr/sbin")]);
    folders.map(|folder| folder.join(name)).filter(|path| path.is_file()).collect()
}

/// The program `name` that was built beside this benchmark, if it was.
///
/// # Errors
/// If the system does not report where this program is.
pub fn built(name: &str) -> Result<Option<PathBuf>, Failure> {
    let path = std::env::current_exe()?.with_file_name(name);
    Ok(path.exists().then_some(path))
}

/// Runs a command to its end and returns how long the process took, and how much processor time; one that takes longer than
/// `limit` is killed.
///
/// Its output is discarded, but for its error messages, of which a failure has the last line.
///
/// # Errors
/// If it cannot be started, does not succeed, or is killed.
pub fn time(command: &mut Command, limit: Duration) -> Result<Sample, Failure> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let begun = Instant::now();
    let mut child = command.spawn()?;
    let pid = pid(&child)?;
    let stderr = child.stderr.take();
    let messages = thread::spawn(move || {
        let mut messages = Vec::new();
        // What cannot be read is missing from the message of a failure.
        let _ = stderr.map(|mut stderr| stderr.read_to_end(&mut messages));
        String::from_utf8_lossy(&messages).into_owned()
    });
    let (ended, end) = mpsc::channel::<()>();
    let watchdog = thread::spawn(move || {
        let late = end.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout);
        // It may have ended this moment.
        late && kill_process(pid, Signal::KILL).is_ok()
    });
    // Its processor time is known until it is waited for.
    waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)?;
    let elapsed = begun.elapsed();
    let client = cpu::of_process(child.id());
    let status = child.wait()?;
    drop(ended);
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy();
    if watchdog.join().unwrap_or(false) {
        return Err(format!("{program} was killed after {} s", limit.as_secs()).into());
    }
    if status.success() {
        return Ok(Sample { client, ..elapsed.into() });
    }
    let messages = messages.join().unwrap_or_default();
    let last = messages.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
    Err(format!("{program} ended with {status}: {last}").into())
}

/// The process's id.
///
/// # Errors
/// If it is not one that the system gives.
pub fn pid(child: &Child) -> Result<Pid, Failure> {
    let number = i32::try_from(child.id())?;
    Pid::from_raw(number).ok_or_else(|| "a process without an id".into())
}

/// Waits until a server that was just started listens, as `try_it` finds out.
///
/// # Errors
/// If it does not within 5 s.
pub fn listening(name: &str, try_it: impl Fn() -> bool) -> Result<(), Failure> {
    let begun = Instant::now();
    while !try_it() {
        if begun.elapsed() > Duration::from_secs(5) {
            return Err(format!("{name} does not listen").into());
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// A process that is asked to end, and waited for, when dropped.
#[derive(Debug)]
pub struct Guard {
    child: Child,
}

impl Guard {
    /// Takes the process.
    pub fn new(child: Child) -> Self {
        Self { child }
    }

    /// Its id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // SIGTERM first: a server with workers ends them. It may have ended by itself; either way it is reaped.
        if let Ok(pid) = pid(&self.child) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let patience = Instant::now();
        while patience.elapsed() < Duration::from_secs(5) {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A path as one word of a shell command.
pub fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', r"'\''"))
}

/// Allows this process as many open files as the system lets it have.
///
/// # Errors
/// The limit cannot be set.
pub fn raise_open_files() -> Result<(), Failure> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let known = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: known.maximum, maximum: known.maximum })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_process_is_killed() {
        let error = time(Command::new("sleep").arg("60"), Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains("was killed"), "{error}");
    }

    #[test]
    fn processor_time_of_the_process_is_counted() {
        let busy = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
        let sample = time(Command::new("sh").args(["-c", busy]), Duration::from_secs(60)).unwrap();
        let client = sample.client.unwrap();
        assert!(client >= Duration::from_millis(10) && client <= 2 * sample.elapsed, "{sample:?}");
    }

    #[test]
    fn failure_has_the_last_message() {
        let mut command = Command::new("sh");
        let error = time(command.args(["-c", "echo a >&2; echo b >&2; exit 3"]), Duration::from_secs(60));
        let error = error.unwrap_err().to_string();
        assert!(error.ends_with(": b") && error.contains('3'), "{error}");
    }

    #[test]
    fn quoted_path_is_one_word() {
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
