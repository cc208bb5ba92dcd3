//! Every client that can fetch the file of a scene, the product's among them, under one kind of name.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it cannot measure")]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::Failure;
use crate::files::{Output, warm};
use crate::peers::{Errand, Peer};
use crate::process::{built, time};
use crate::product::Program;
use crate::rounds::{Candidate, Series};

/// The product with nothing said about its protocol or verification.
pub const OURS: &str = "dtclient";

/// What there is to fetch, from where, and where to.
#[derive(Debug)]
pub struct Scene {
    /// The `dtserver`, as HOST:PORT.
    pub server: String,
    /// The web server, as HOST:PORT, if there is one.
    pub web: Option<String>,
    /// The file's name on both.
    pub file: String,
    /// Its size in bytes.
    pub size: u64,
    /// Over how many streams.
    pub streams: u16,
    /// Where it goes.
    pub output: Output,
    /// An empty folder, for programs that keep something in the user's.
    pub home: PathBuf,
    /// What no run may take.
    pub limit: Duration,
}

impl Scene {
    /// A scene in `folder`, in which the file is.
    ///
    /// # Errors
    /// If the folder for outputs cannot be made.
    pub fn new(folder: &Path, file: &str, size: u64, streams: u16) -> io::Result<Self> {
        let home = folder.join("home");
        fs::create_dir_all(&home)?;
        Ok(Self {
            server: String::new(),
            web: None,
            file: file.to_owned(),
            size,
            streams,
            output: Output::new(folder)?,
            home,
            limit: Duration::from_secs(180),
        })
    }

    /// One run of a command that writes the output: its whole process.
    ///
    /// # Errors
    /// If it fails, or the output has another length.
    pub fn run(&self, command: &mut Command) -> Result<Duration, Failure> {
        self.output.clear()?;
        warm(self.size);
        let elapsed = time(command, self.limit)?;
        self.output.demand(self.size)?;
        Ok(elapsed)
    }

    /// A tool in C that moves the file `input`, of whole MiB, to the output over so many streams, in the `way` that its
    /// arguments say.
    pub fn tool(&self, program: &Path, input: &Path, streams: u16, way: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.arg(input).arg(self.output.path());
        command.args([(self.size >> 20).to_string(), streams.to_string()]).args(way);
        command
    }

    /// What the client of that name is run with.
    ///
    /// # Errors
    /// Why it cannot be run here.
    pub fn command(&self, name: &str) -> Result<Command, Failure> {
        let options: &[&str] = match name {
            OURS => &[],
            "dtclient-1" => &["--protocol", "1"],
            "dtclient-md5" => &["--md5"],
            "dtclient-one-stream" => return self.ours(&[], 1),
            "unverified" => return self.unverified(),
            _ => return self.peer(name),
        };
        self.ours(options, self.streams)
    }

    fn ours(&self, options: &[&str], streams: u16) -> Result<Command, Failure> {
        let client = Program::find("dtclient")?;
        if let Some(option) = options.first() {
            client.demand(&[option])?;
        }
        let mut command = client.command();
        command.arg("--quiet").args(options);
        self.positionals(&mut command, streams);
        Ok(command)
    }

    /// The program that shows what verifying costs; it is no part of the product.
    fn unverified(&self) -> Result<Command, Failure> {
        let program = built("bench-unverified-client")?.ok_or("bench-unverified-client was not built")?;
        let mut command = Command::new(program);
        command.env("DT_BENCH_UNVERIFIED", "1");
        self.positionals(&mut command, self.streams);
        Ok(command)
    }

    fn positionals(&self, command: &mut Command, streams: u16) {
        command.args([&self.server, &streams.to_string(), &self.file]).arg(self.output.path());
    }

    fn peer(&self, name: &str) -> Result<Command, Failure> {
        let peer = Peer::named(name).ok_or("no client of that name is known")?;
        let web = self.web.as_ref().ok_or("nginx is not installed")?;
        if !peer.is_here() {
            return Err("not installed".into());
        }
        let (web, output) = (format!("http://{web}"), self.output.path());
        let errand =
            Errand { web: &web, file: &self.file, streams: self.streams, output: &output, home: &self.home };
        Ok(peer.command(&errand))
    }

    /// A candidate for each of the names; those that cannot be run here are said to be missing.
    pub fn candidates<'a>(&'a self, names: &[&str]) -> Vec<Candidate<'a>> {
        let mut candidates: Vec<Candidate<'a>> = Vec::new();
        for &name in names {
            match self.command(name) {
                Ok(mut command) => {
                    candidates.push((name.to_owned(), Box::new(move || self.run(&mut command))));
                }
                Err(why) => missing(name, &why),
            }
        }
        candidates
    }
}

/// Says that something is not measured, and why.
pub fn missing(name: &str, why: &Failure) {
    println!("missing: {name} ({why})");
}

/// The best of all series but the product's own and the limits.
pub fn best_peer(series: &[Series]) -> Option<&Series> {
    let peers = series.iter().filter(|one| Peer::named(&one.name).is_some() && one.best().is_some());
    peers.min_by(|a, b| a.best().partial_cmp(&b.best()).unwrap_or(std::cmp::Ordering::Equal))
}

/// Fails if the product had no run that succeeded.
///
/// # Errors
/// With what the product said.
pub fn demand_ours(series: &[Series]) -> Result<(), Failure> {
    match series.iter().find(|one| one.name.starts_with(OURS) && one.best().is_none()) {
        Some(failed) => {
            let complaint = failed.complaint.as_deref().unwrap_or("not one run succeeded");
            Err(format!("{}: {complaint}", failed.name).into())
        }
        None => Ok(()),
    }
}
