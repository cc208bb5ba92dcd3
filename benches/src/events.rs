//! A running `dtclient --json`: its events as they come, and its end.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Failure;

/// One event, and when this program read it, counted from the start of the process.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Since the start of the process.
    pub at: Duration,
    value: Value,
}

impl Seen {
    /// Reads a line of the output.
    pub fn read(at: Duration, line: &str) -> Option<Self> {
        Some(Self { at, value: serde_json::from_str(line).ok()? })
    }

    /// Whether it is an event of that name.
    pub fn is(&self, name: &str) -> bool {
        self.value.get("event").and_then(Value::as_str) == Some(name)
    }

    /// A whole number of it.
    pub fn count(&self, key: &str) -> Option<u64> {
        self.value.get(key)?.as_u64()
    }

    /// A time of it.
    pub fn seconds(&self, key: &str) -> Option<f64> {
        self.value.get(key)?.as_f64()
    }
}

/// A transfer that is running.
#[derive(Debug)]
pub struct Running {
    child: Child,
    events: Receiver<Seen>,
    complaints: JoinHandle<String>,
    /// When the process was started.
    pub begun: Instant,
}

/// A transfer that has ended.
#[derive(Debug)]
pub struct Ended {
    /// How the process ended.
    pub status: ExitStatus,
    /// How long it ran.
    pub elapsed: Duration,
    /// All events that it told, in their order.
    pub events: Vec<Seen>,
    /// What it said to people.
    pub complaints: String,
}

impl Running {
    /// Starts the command, whose standard output is read as events.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(command: &mut Command) -> Result<Self, Failure> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let begun = Instant::now();
        let mut child = command.spawn()?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (sender, events) = mpsc::channel();
        thread::spawn(move || {
            for line in stdout.into_iter().flat_map(|out| BufReader::new(out).lines()).map_while(Result::ok) {
                let seen = Seen::read(begun.elapsed(), &line);
                if seen.is_some_and(|seen| sender.send(seen).is_err()) {
                    break;
                }
            }
        });
        let complaints = thread::spawn(move || {
            let mut bytes = Vec::new();
            // What could be read is better than nothing.
            let _ = stderr.map(|mut stderr| stderr.read_to_end(&mut bytes));
            String::from_utf8_lossy(&bytes).into_owned()
        });
        Ok(Self { child, events, complaints, begun })
    }

    /// Its process's number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// What the system says.
    pub fn is_running(&mut self) -> Result<bool, Failure> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Kills it as nothing can be caught, and waits for its end.
    ///
    /// # Errors
    /// What the system says.
    pub fn kill(mut self) -> Result<Ended, Failure> {
        self.child.kill()?;
        self.wait()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// What the system says.
    pub fn wait(mut self) -> Result<Ended, Failure> {
        let status = self.child.wait()?;
        let elapsed = self.begun.elapsed();
        // The channel ends with the process's output.
        let events = self.events.iter().collect();
        let complaints = self.complaints.join().unwrap_or_default();
        Ok(Ended { status, elapsed, events, complaints })
    }
}

impl Ended {
    /// Fails unless the process succeeded.
    ///
    /// # Errors
    /// With what it said last.
    pub fn demand(&self) -> Result<(), Failure> {
        if self.status.success() {
            return Ok(());
        }
        let last = self.complaints.lines().last().unwrap_or_default();
        Err(format!("dtclient ended with {}: {last}", self.status).into())
    }

    /// The last event of that name.
    pub fn last(&self, name: &str) -> Option<&Seen> {
        self.events.iter().rfind(|seen| seen.is(name))
    }
}

/// How long after the last byte the process's work was done, as `dtclient -v` tells people.
pub fn told_behind_last_byte(complaints: &str) -> Option<Duration> {
    let line = complaints.lines().find(|line| line.contains("the last byte came after"))?;
    let (_, rest) = line.split_once(" took ")?;
    let seconds = rest.split_whitespace().next()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_with_their_numbers() {
        let mut command = Command::new("sh");
        let lines = r#"echo '{"v":1,"event":"progress","seconds":0.5,"received":7}'; echo no; exit 1"#;
        let ended = Running::start(command.args(["-c", lines])).unwrap().wait().unwrap();
        assert_eq!(ended.events.len(), 1);
        let seen = ended.last("progress").unwrap();
        assert_eq!((seen.count("received"), seen.seconds("seconds")), (Some(7), Some(0.5)));
        assert!(ended.demand().is_err());
    }

    #[test]
    fn the_time_behind_the_last_byte_is_read_from_the_line_for_people() {
        let line = "the last byte came after 1.20 s; verifying and publishing took 0.40 s more";
        let expected = Some(Duration::from_millis(400));
        assert_eq!(told_behind_last_byte(&format!("a\n{line}\n")), expected);
        assert_eq!(told_behind_last_byte("nothing"), None);
    }
}
