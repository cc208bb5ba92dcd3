//! Every client that can fetch the file of a scene, the product's among them, by name.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it cannot measure")]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::Failure;
use crate::cpu;
use crate::files::{Output, warm};
use crate::peers::{Errand, Peer, Via};
use crate::process::{built, time};
use crate::product::Program;
use crate::rounds::{Candidate, Sample, Series};
use crate::{gridftp, nginx};

/// The product with the default protocol, and verifying.
pub const OURS: &str = "dtclient";

/// An earlier build of it, with its own server.
pub const OLD: &str = "dtclient-old";

/// The product with protocol 1, which compares the MD5 of the file.
pub const LEGACY: &str = "dtclient-1";

/// The library without its digests.
pub const UNVERIFIED: &str = "unverified";

/// A server that clients fetch from.
#[derive(Clone, Default, Debug)]
pub struct Endpoint {
    /// Where it listens, as HOST:PORT.
    pub address: String,
    /// Its process, if its processor time can be read here.
    pub process: Option<u32>,
}

impl From<String> for Endpoint {
    fn from(address: String) -> Self {
        Self { address, process: None }
    }
}

/// An earlier build of the product.
#[derive(Clone, Debug)]
pub struct Old {
    /// Its client.
    pub client: PathBuf,
    /// Its server.
    pub server: Endpoint,
}

/// What there is to fetch, from where, and where to.
#[derive(Debug)]
pub struct Scene {
    /// The `dtserver`.
    pub server: Endpoint,
    /// An earlier build, if it is to be measured too.
    pub old: Option<Old>,
    /// The web server, if there is one.
    pub web: Option<Endpoint>,
    /// The `GridFTP` server, if there is one.
    pub gridftp: Option<Endpoint>,
    /// The folder that all of them serve.
    pub root: PathBuf,
    /// The file's name there.
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

/// A client ready to run, and whose processor time is the server's.
#[derive(Debug)]
pub struct Fetch {
    /// The command.
    pub command: Command,
    server: Option<u32>,
}

impl From<Command> for Fetch {
    fn from(command: Command) -> Self {
        Self { command, server: None }
    }
}

impl Scene {
    /// A scene in `folder`, in which the file is.
    ///
    /// # Errors
    /// If the folder for outputs cannot be created.
    pub fn new(folder: &Path, file: &str, size: u64, streams: u16) -> io::Result<Self> {
        let home = folder.join("home");
        fs::create_dir_all(&home)?;
        Ok(Self {
            server: Endpoint::default(),
            old: None,
            web: None,
            gridftp: None,
            root: folder.to_owned(),
            file: file.to_owned(),
            size,
            streams,
            output: Output::new(folder)?,
            home,
            limit: Duration::from_secs(180),
        })
    }

    /// One run of a client that writes the output: the time of its process, and the processor time of both sides.
    ///
    /// # Errors
    /// If it fails, or the output has another length.
    pub fn run(&self, fetch: &mut Fetch) -> Result<Sample, Failure> {
        self.output.clear()?;
        warm(self.size);
        let server_time = || fetch.server.and_then(cpu::of_tree);
        let before = server_time();
        let sample = time(&mut fetch.command, self.limit)?;
        let server = server_time().zip(before).map(|(after, before)| after.saturating_sub(before));
        self.output.demand(self.size)?;
        Ok(Sample { server, ..sample })
    }

    /// A tool in C that moves the file `input`, whose size is a multiple of a MiB, to the output over so many streams, with these
    /// further arguments. It is both sides in one process.
    pub fn tool(&self, program: &Path, input: &Path, streams: u16, way: &[&str]) -> Fetch {
        let mut command = Command::new(program);
        command.arg(input).arg(self.output.path());
        command.args([(self.size >> 20).to_string(), streams.to_string()]).args(way);
        command.into()
    }

    /// What the client of that name is run with.
    ///
    /// # Errors
    /// Why it cannot be run here.
    pub fn command(&self, name: &str) -> Result<Fetch, Failure> {
        let options: &[&str] = match name {
            OURS => &[],
            LEGACY => &["--protocol", "1"],
            "dtclient-md5" => &["--md5"],
            "dtclient-one-stream" => return self.ours(&[], 1),
            OLD => return self.old(),
            UNVERIFIED => return self.unverified(),
            _ => return self.peer(name),
        };
        self.ours(options, self.streams)
    }

    fn ours(&self, options: &[&str], streams: u16) -> Result<Fetch, Failure> {
        let client = Program::find("dtclient")?;
        if let Some(option) = options.first() {
            client.demand(&[option])?;
        }
        let mut command = client.command();
        command.arg("--quiet").args(options);
        Ok(self.fetch(command, &self.server, streams))
    }

    fn old(&self) -> Result<Fetch, Failure> {
        let old = self.old.as_ref().ok_or("--old DIR names no folder with both programs")?;
        let mut command = Command::new(&old.client);
        command.arg("--quiet");
        Ok(self.fetch(command, &old.server, self.streams))
    }

    /// The program that shows what verifying costs; it is no part of the product.
    fn unverified(&self) -> Result<Fetch, Failure> {
        let program = built("bench-unverified-client")?
            .ok_or("not built: cargo build --release -p dt-benches --features unverified")?;
        let mut command = Command::new(program);
        command.env("DT_BENCH_UNVERIFIED", "1");
        Ok(self.fetch(command, &self.server, self.streams))
    }

    /// A client of the product with its four positional arguments.
    fn fetch(&self, mut command: Command, server: &Endpoint, streams: u16) -> Fetch {
        command.args([&server.address, &streams.to_string(), &self.file]).arg(self.output.path());
        Fetch { command, server: server.process }
    }

    fn peer(&self, name: &str) -> Result<Fetch, Failure> {
        let peer = Peer::named(name).ok_or("no client has this name")?;
        let (server, scheme, folder, package) = match peer.via {
            Via::Web => (&self.web, "http", String::new(), nginx::PACKAGE),
            Via::GridFtp => (&self.gridftp, "ftp", self.root.display().to_string(), gridftp::PACKAGE),
        };
        let server = server
            .as_ref()
            .ok_or_else(|| format!("its server is not used here, or not installed: {package}"))?;
        let (base, output) = (format!("{scheme}://{}{folder}", server.address), self.output.path());
        let errand = Errand {
            base: &base,
            file: &self.file,
            streams: self.streams,
            output: &output,
            home: &self.home,
        };
        let command = peer.command(&errand).ok_or_else(|| format!("not installed: {}", peer.package()))?;
        Ok(Fetch { command, server: server.process })
    }

    /// A candidate for each of the names, and for the earlier build if there is one; those that cannot be run here are printed
    /// as skipped.
    pub fn candidates<'a>(&'a self, names: &[&str]) -> Vec<Candidate<'a>> {
        let mut candidates: Vec<Candidate<'a>> = Vec::new();
        let old = self.old.as_ref().map(|_| OLD).filter(|old| !names.contains(old));
        for name in names.iter().copied().chain(old) {
            match self.command(name) {
                Ok(mut fetch) => {
                    candidates.push((name.to_owned(), Box::new(move || self.run(&mut fetch))));
                }
                Err(why) => skipped(name, &why),
            }
        }
        candidates
    }
}

/// Prints that something is not measured, and why.
pub fn skipped(name: &str, why: &Failure) {
    println!("skipped: {name} ({why})");
}

/// The peer with the best run.
pub fn best_peer(series: &[Series]) -> Option<&Series> {
    let peers = series.iter().filter(|one| Peer::named(&one.name).is_some() && one.best().is_some());
    peers.min_by(|a, b| a.best().partial_cmp(&b.best()).unwrap_or(std::cmp::Ordering::Equal))
}

/// The peer with the best median.
pub fn best_peer_by_median(series: &[Series]) -> Option<&Series> {
    let peers = series.iter().filter(|one| Peer::named(&one.name).is_some() && one.median().is_some());
    peers.min_by(|a, b| a.median().partial_cmp(&b.median()).unwrap_or(std::cmp::Ordering::Equal))
}

/// Fails if the product had no run that succeeded.
///
/// # Errors
/// With the product's error message.
pub fn demand_ours(series: &[Series]) -> Result<(), Failure> {
    match series.iter().find(|one| one.name.starts_with(OURS) && one.best().is_none()) {
        Some(failed) => {
            let last_error = failed.last_error.as_deref().unwrap_or("no run succeeded");
            Err(format!("{}: {last_error}", failed.name).into())
        }
        None => Ok(()),
    }
}
