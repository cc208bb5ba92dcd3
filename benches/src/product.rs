//! The product's programs, as they were built and in an earlier version: their options, and how they are started.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use dt_testkit::process::{Outcome, Process};
use dt_testkit::programs::{Run, Server};

use crate::Failure;
use crate::process::built;

/// A client that takes longer than this hangs.
const LIMIT: Duration = Duration::from_secs(3600);

/// One program of the product.
#[derive(Clone, Debug)]
pub struct Program {
    name: &'static str,
    path: PathBuf,
    help: String,
}

impl Program {
    /// The program `name`, built beside this benchmark.
    ///
    /// # Errors
    /// If it was not built; the message contains the command.
    pub fn find(name: &'static str) -> Result<Self, Failure> {
        let path =
            built(name)?.ok_or_else(|| format!("{name} is missing: run cargo build --release first"))?;
        let help = Command::new(&path).arg("--help").stdin(Stdio::null()).output()?;
        Ok(Self { name, path, help: String::from_utf8_lossy(&help.stdout).into_owned() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it has this option.
    pub fn has(&self, option: &str) -> bool {
        self.help.split_whitespace().any(|word| word.trim_end_matches(',') == option)
    }

    /// Fails unless it has these options.
    ///
    /// # Errors
    /// If one is missing: the message names it.
    pub fn demand(&self, options: &[&str]) -> Result<(), Failure> {
        match options.iter().find(|option| !self.has(option)) {
            Some(missing) => Err(format!("this {} has no {missing}, which is needed here", self.name).into()),
            None => Ok(()),
        }
    }

    /// A command that runs it.
    pub fn command(&self) -> Command {
        Command::new(&self.path)
    }
}

/// An earlier build of both programs, to be measured in the same rounds.
#[derive(Clone, Debug)]
pub struct OldPrograms {
    folder: PathBuf,
    client: PathBuf,
    server: PathBuf,
}

impl OldPrograms {
    /// `dtclient` and `dtserver` in `folder`.
    ///
    /// # Errors
    /// If one is missing.
    pub fn in_folder(folder: &Path) -> Result<Self, Failure> {
        // The clients run in other folders.
        let folder = folder.canonicalize()?;
        let find = |name: &str| {
            let path = folder.join(name);
            if path.is_file() { Ok(path) } else { Err(format!("{} is missing", path.display())) }
        };
        Ok(Self { client: find("dtclient")?, server: find("dtserver")?, folder })
    }

    /// Where they are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The `dtclient`.
    pub fn client(&self) -> &Path {
        &self.client
    }

    /// The `dtserver`.
    pub fn server(&self) -> &Path {
        &self.server
    }
}

/// Serves the files below `root` on a port of the loopback address, of the system's choice.
///
/// # Errors
/// If the server was not built.
pub fn serve(root: &Path, options: &[&str]) -> Result<Server, Failure> {
    serve_with(Program::find("dtserver")?.path(), root, options)
}

/// As [`serve`], with this `dtserver`.
///
/// # Errors
/// If it ends at once.
pub fn serve_with(program: &Path, root: &Path, options: &[&str]) -> Result<Server, Failure> {
    let run = Run::of(program, "dtserver").options(["--quiet", "--bind", "127.0.0.1", "--root"]);
    let ready = run.options([root]).options(options).try_ready();
    ready.map_err(|outcome| format!("{} ended: {outcome}", program.display()).into())
}

/// Runs a client that reports events.
pub fn start(command: Command) -> Process {
    Process::start(command, "dtclient", None)
}

/// Waits for the end of a client, which must have succeeded.
///
/// # Errors
/// With its last message.
pub fn finish(process: Process) -> Result<Outcome, Failure> {
    let outcome = process.finish_within(LIMIT);
    match outcome.code {
        Some(0) => Ok(outcome),
        code => Err(format!("dtclient ended with {code:?}: {}", outcome.error()).into()),
    }
}

/// The time between the last byte and the end of the work, as `dtclient -v` reports it: the last number of its line.
pub fn after_last_byte(stderr: &str) -> Option<Duration> {
    let line = stderr.lines().find(|line| line.contains("last byte"))?;
    let seconds = line.split_whitespace().rev().find_map(|word| word.parse().ok())?;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_after_the_last_byte_is_parsed() {
        let line = "last byte received after 1.20 s; verified and in place 0.40 s later";
        assert_eq!(after_last_byte(&format!("a\n{line}\n")), Some(Duration::from_millis(400)));
        assert_eq!(after_last_byte("nothing"), None);
    }
}
