//! The tools that people use today, each fetching one file over HTTP, with the options that suit it best.

use std::path::Path;
use std::process::Command;

use crate::process::on_path;

/// What a peer is asked to do.
#[derive(Clone, Copy, Debug)]
pub struct Errand<'a> {
    /// The web server, as `http://HOST:PORT`.
    pub web: &'a str,
    /// The file's name there.
    pub file: &'a str,
    /// Over how many connections, where the tool can.
    pub streams: u16,
    /// Where to put it.
    pub output: &'a Path,
    /// An empty folder in the place of the user's own, whose settings are not measured.
    pub home: &'a Path,
}

impl Errand<'_> {
    fn url(&self) -> String {
        format!("{}/{}", self.web, self.file)
    }
}

/// A tool that fetches files over HTTP.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Its program.
    pub name: &'static str,
    arguments: fn(&mut Command, &Errand<'_>),
}

/// All that are known, those of many connections first.
pub const PEERS: [Peer; 6] = [
    Peer { name: "rclone", arguments: rclone },
    Peer { name: "aria2c", arguments: aria2c },
    Peer { name: "axel", arguments: axel },
    Peer { name: "lftp", arguments: lftp },
    Peer { name: "curl", arguments: curl },
    Peer { name: "wget", arguments: wget },
];

impl Peer {
    /// The peer of that name.
    pub fn named(name: &str) -> Option<Self> {
        PEERS.into_iter().find(|peer| peer.name == name)
    }

    /// Whether it is installed.
    pub fn is_here(&self) -> bool {
        on_path(self.name).is_some()
    }

    /// The command that does the errand.
    pub fn command(&self, errand: &Errand<'_>) -> Command {
        let mut command = Command::new(self.name);
        command.env("HOME", errand.home);
        for scheme in ["http", "https", "all", "no"] {
            command.env_remove(format!("{scheme}_proxy"));
            command.env_remove(format!("{scheme}_proxy").to_uppercase());
        }
        (self.arguments)(&mut command, errand);
        command
    }
}

fn rclone(command: &mut Command, errand: &Errand<'_>) {
    let streams = errand.streams.to_string();
    command.args(["--config", "", "copyto", "--multi-thread-cutoff", "1Mi"]);
    command.args(["--multi-thread-streams", &streams, "--http-url", errand.web]);
    command.arg(format!(":http:{}", errand.file)).arg(errand.output);
}

fn aria2c(command: &mut Command, errand: &Errand<'_>) {
    // More than 16 connections to one server it does not make. Its own preallocation writes zeros.
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
