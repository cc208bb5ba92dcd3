//! A program under test as a process: watched while it runs, ended by its id, never waited for without a limit.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::wait::until_within;

/// A running program with its output collected.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    begin: Instant,
    stdout: Capture,
    stderr: Capture,
    /// A copy of the program that has to stay as long as it runs.
    _program: Option<TempDir>,
}

/// How a program ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// All of standard output.
    pub stdout: Vec<u8>,
    /// All of standard error.
    pub stderr: String,
    /// How long it ran.
    pub took: Duration,
}

impl Process {
    /// Starts `command` with closed input and collected output.
    pub fn start(mut command: Command, name: &str, program: Option<TempDir>) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let begin = Instant::now();
        let mut child = command.spawn().unwrap_or_else(|error| panic!("starting {name}: {error}"));
        let stdout = Capture::of(child.stdout.take().expect("it is piped"));
        let stderr = Capture::of(child.stderr.take().expect("it is piped"));
        Self { child, name: name.to_owned(), begin, stdout, stderr, _program: program }
    }

    /// How long it has been running.
    pub fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> Vec<u8> {
        self.stdout.so_far()
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr.so_far()).into_owned()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a child has an id");
        kill_process(id, signal).unwrap_or_else(|error| panic!("signal to {}: {error}", self.name));
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child can be asked").is_some()
    }

    /// Waits for its end, at most `limit`.
    pub fn finish_within(mut self, limit: Duration) -> Outcome {
        let what = format!("the end of {}", self.name);
        let begin = Instant::now();
        let status: ExitStatus = loop {
            if let Some(status) = self.child.try_wait().expect("a child can be asked") {
                break status;
            }
            if begin.elapsed() > limit {
                let (stdout, stderr) = (self.stdout(), self.stderr());
                let stdout = String::from_utf8_lossy(&stdout[..stdout.len().min(500)]).into_owned();
                panic!("waited {limit:?} without success for {what}; stdout {stdout:?}, stderr {stderr:?}");
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let took = self.begin.elapsed();
        Outcome {
            code: status.code(),
            signal: status.signal(),
            stdout: self.stdout.finish(&what),
            stderr: String::from_utf8_lossy(&self.stderr.finish(&what)).into_owned(),
            took,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only for a child that has been waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads a pipe to its end in a thread of its own, so that the writer never has to wait.
#[derive(Debug)]
struct Capture {
    bytes: Arc<Mutex<Vec<u8>>>,
    thread: Option<JoinHandle<()>>,
}

impl Capture {
    fn of(mut pipe: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&bytes);
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(n @ 1..) = pipe.read(&mut buffer) {
                shared.lock().expect("no holder panics").extend_from_slice(&buffer[..n]);
            }
        });
        Self { bytes, thread: Some(thread) }
    }

    fn so_far(&self) -> Vec<u8> {
        self.bytes.lock().expect("no holder panics").clone()
    }

    fn finish(&mut self, what: &str) -> Vec<u8> {
        let thread = self.thread.take().expect("finished once");
        until_within(Duration::from_secs(10), what, || thread.is_finished().then_some(()));
        std::mem::take(&mut *self.bytes.lock().expect("no holder panics"))
    }
}

impl Outcome {
    /// Fails unless the program said it succeeded.
    pub fn assert_success(&self) -> &Self {
        assert_eq!(self.code, Some(0), "{self}");
        self
    }

    /// Fails unless `dtclient` ended with `code` and printed the reason in exactly one line.
    pub fn assert_failure(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{self}");
        self.assert_one_line("dtclient: ");
        self
    }

    /// Fails unless standard error ends with its only line that begins with `prefix`, and no panic shows.
    pub fn assert_one_line(&self, prefix: &str) {
        let lines: Vec<&str> = self.stderr.lines().collect();
        let errors = lines.iter().filter(|line| line.starts_with(prefix)).count();
        assert_eq!(errors, 1, "one line of error expected: {self}");
        assert!(lines.last().is_some_and(|line| line.starts_with(prefix)), "the error is not last: {self}");
        for word in ["panicked", "RUST_BACKTRACE", "stack backtrace"] {
            assert!(!self.stderr.contains(word), "{word}: {self}");
        }
    }

    /// The error line of `dtclient`, in lower case.
    pub fn error(&self) -> String {
        self.stderr.lines().last().unwrap_or_default().to_lowercase()
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let stdout = String::from_utf8_lossy(&self.stdout[..self.stdout.len().min(500)]);
        let Self { code, signal, stderr, took, .. } = self;
        write!(f, "code {code:?}, signal {signal:?} after {took:?}, stdout {stdout:?}, stderr {stderr:?}")
    }
}
