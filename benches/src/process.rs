//! Processes under a stopwatch, with a limit to their time, and where they are found.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::Failure;

/// The program `name`, if a folder of `PATH` has it.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// The program `name` that was built beside this benchmark, if it was.
///
/// # Errors
/// If the system does not tell where this program is.
pub fn built(name: &str) -> Result<Option<PathBuf>, Failure> {
    let path = std::env::current_exe()?.with_file_name(name);
    Ok(path.exists().then_some(path))
}

/// Runs a command to its end and returns how long the whole process took; one that takes longer than `limit` is killed.
///
/// Its output goes nowhere, but for its complaints, of which a failure has the last line.
///
/// # Errors
/// If it cannot be started, does not succeed, or is killed.
pub fn time(command: &mut Command, limit: Duration) -> Result<Duration, Failure> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let begun = Instant::now();
    let child = command.spawn()?;
    let pid = pid(&child)?;
    let (ended, end) = mpsc::channel::<()>();
    let watchdog = thread::spawn(move || {
        let late = end.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout);
        // It may have ended this moment.
        late && kill_process(pid, Signal::KILL).is_ok()
    });
    let output = child.wait_with_output()?;
    let elapsed = begun.elapsed();
    drop(ended);
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy();
    if watchdog.join().unwrap_or(false) {
        return Err(format!("{program} was killed after {} s", limit.as_secs()).into());
    }
    if output.status.success() {
        return Ok(elapsed);
    }
    let told = String::from_utf8_lossy(&output.stderr);
    let last = told.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
    Err(format!("{program} ended with {}: {last}", output.status).into())
}

/// The process's number.
///
/// # Errors
/// If it is none that the system gives.
pub fn pid(child: &Child) -> Result<Pid, Failure> {
    let number = i32::try_from(child.id())?;
    Pid::from_raw(number).ok_or_else(|| "a process without a number".into())
}

/// A process that is asked to end, and waited for, when its owner goes.
#[derive(Debug)]
pub struct Guard {
    child: Child,
}

impl Guard {
    /// Takes the process.
    pub fn new(child: Child) -> Self {
        Self { child }
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // SIGTERM first: whoever has workers ends them. It may have ended by itself; either way it is reaped.
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

/// A path as one word of a shell's line.
pub fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', r"'\''"))
}

/// Allows this process as many open files as the system lets it have.
///
/// # Errors
/// What the system says.
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
    fn a_process_that_takes_too_long_is_killed() {
        let error = time(Command::new("sleep").arg("60"), Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains("was killed"), "{error}");
    }

    #[test]
    fn a_failure_has_the_last_complaint() {
        let mut command = Command::new("sh");
        let error = time(command.args(["-c", "echo a >&2; echo b >&2; exit 3"]), Duration::from_secs(60));
        let error = error.unwrap_err().to_string();
        assert!(error.ends_with(": b") && error.contains('3'), "{error}");
    }

    #[test]
    fn a_quoted_path_is_one_word() {
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
