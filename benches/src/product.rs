//! The product's programs as they were built: what they can do, and a server that ends with its owner.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Failure;
use crate::process::{Guard, built};

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
    /// If it was not built: the message says how to.
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

/// A `dtserver` on the loopback address, ended when dropped.
#[derive(Debug)]
pub struct Server {
    guard: Guard,
    /// Where it listens, as HOST:PORT.
    pub address: String,
}

impl Server {
    /// Serves the files below `root`, on a port of the system's choice.
    ///
    /// # Errors
    /// If it cannot be started, or does not say that it listens.
    pub fn start(root: &Path) -> Result<Self, Failure> {
        Self::start_with(root, &[])
    }

    /// The same with more options.
    ///
    /// # Errors
    /// If it cannot be started, or does not say that it listens.
    pub fn start_with(root: &Path, options: &[&str]) -> Result<Self, Failure> {
        let mut command = Program::find("dtserver")?.command();
        command.args(["--quiet", "--bind", "127.0.0.1"]).arg("--root").arg(root).args(options).arg("0");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn()?;
        let stdout = child.stdout.take();
        let guard = Guard::new(child);
        let mut line = String::new();
        if let Some(stdout) = stdout {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let said = line.strip_prefix("listening on ").and_then(|rest| rest.split(',').next());
        let address = said.ok_or_else(|| format!("dtserver did not start: {line:?}"))?.trim_end().to_owned();
        Ok(Self { guard, address })
    }

    /// Its process's number.
    pub fn id(&self) -> u32 {
        self.guard.id()
    }
}
