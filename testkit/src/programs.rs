//! `dtserver` and `dtclient` with the arguments of a test.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::process::{Outcome, Process};
use crate::wait::until;

/// How long a chosen port may be in use by a connection of another test.
const PORT_WAIT: Duration = Duration::from_secs(5);

/// A user that owns nothing.
const NOBODY: u32 = 65534;

/// How long one run of a program may take unless the test says otherwise.
const RUN: Duration = Duration::from_secs(60);

/// Where the programs under test are; made by [`programs!`](crate::programs!).
#[derive(Clone, Copy, Debug)]
pub struct Programs {
    /// `dtserver`.
    pub server: &'static str,
    /// `dtclient`.
    pub client: &'static str,
}

impl Programs {
    /// A `dtserver` for `root` on a free port of 127.0.0.1.
    pub fn serve(&self, root: &Path) -> Run {
        self.server().args(["--root".as_ref(), root.as_os_str()]).args(["--bind", "127.0.0.1"])
    }

    /// A `dtserver` without any argument yet.
    pub fn server(&self) -> Run {
        Run::of(self.server, "dtserver")
    }

    /// A `dtclient` with its four main arguments.
    pub fn fetch(
        &self,
        addr: SocketAddr,
        streams: u8,
        file: impl AsRef<OsStr>,
        output: impl AsRef<OsStr>,
    ) -> Run {
        let (addr, streams) = (addr.to_string(), streams.to_string());
        self.client().args([addr.as_ref(), streams.as_ref(), file.as_ref(), output.as_ref()])
    }

    /// A `dtclient` without any argument yet.
    pub fn client(&self) -> Run {
        Run::of(self.client, "dtclient")
    }
}

/// A program about to be started.
#[derive(Clone, Debug)]
pub struct Run {
    program: PathBuf,
    name: &'static str,
    options: Vec<OsString>,
    args: Vec<OsString>,
    envs: Vec<(&'static str, OsString)>,
    /// A command that gets the program and its arguments.
    wrapper: Vec<OsString>,
    user: Option<u32>,
    limit: Duration,
}

impl Run {
    /// A program at this path, with a name for messages.
    pub fn of(program: impl Into<PathBuf>, name: &'static str) -> Self {
        Self {
            program: program.into(),
            name,
            options: vec![],
            args: vec![],
            envs: vec![],
            wrapper: vec![],
            user: None,
            limit: RUN,
        }
    }

    /// Adds options, which come before all arguments.
    pub fn options<T: AsRef<OsStr>>(mut self, options: impl IntoIterator<Item = T>) -> Self {
        self.options.extend(options.into_iter().map(|option| option.as_ref().to_owned()));
        self
    }

    /// Adds arguments.
    pub fn args<T: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = T>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &'static str, value: impl AsRef<OsStr>) -> Self {
        self.envs.push((name, value.as_ref().to_owned()));
        self
    }

    /// Runs it under another program, which gets these arguments and then the command.
    pub fn under<T: AsRef<OsStr>>(mut self, wrapper: impl IntoIterator<Item = T>) -> Self {
        self.wrapper = wrapper.into_iter().map(|word| word.as_ref().to_owned()).collect();
        self
    }

    /// Runs it as a user without privileges: as nobody when the tests run as root, else as the tests' own user.
    pub fn unprivileged(mut self) -> Self {
        self.user = rustix::process::geteuid().is_root().then_some(NOBODY);
        self
    }

    /// Runs it as this user, with the group of the same number; only root can.
    pub fn as_user(mut self, user: u32) -> Self {
        self.user = Some(user);
        self
    }

    /// Runs it with these signals ignored, by their names as the shell knows them.
    pub fn ignoring(self, signals: &str) -> Self {
        self.after(&format!("trap '' {signals}"))
    }

    /// Gives it this file for standard error.
    pub fn stderr_into(self, path: &Path) -> Self {
        self.after(&format!("exec 2> '{}'", path.display()))
    }

    /// Gives it this file for standard output.
    pub fn stdout_into(self, path: &Path) -> Self {
        self.after(&format!("exec > '{}'", path.display()))
    }

    /// Allows it files of so many bytes at most.
    pub fn with_largest_file(self, bytes: usize) -> Self {
        // POSIX counts in blocks of this size.
        self.after(&format!("ulimit -f {}", bytes / 512))
    }

    /// Lets a shell do something before it becomes the program.
    fn after(self, prelude: &str) -> Self {
        self.under(["sh", "-c", &format!("{prelude}; exec \"$0\" \"$@\"")])
    }

    /// Gives it more or less time than usual.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Starts it.
    pub fn start(self) -> Process {
        let copy = self.user.map(|_| copy_for_all(&self.program));
        let program = copy.as_ref().map_or(self.program, |copy| copy.path().join("program"));
        let mut words = self.wrapper.into_iter().chain([OsString::from(program)]);
        let mut command = Command::new(words.next().expect("there is the program at least"));
        command.args(words);
        // Settings of the user who runs the tests must not reach the programs.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("DT_")) {
            command.env_remove(name);
        }
        command.args(&self.options).args(&self.args).envs(self.envs);
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        Process::start(command, self.name, copy)
    }

    /// Runs it to its end.
    pub fn run(self) -> Outcome {
        let limit = self.limit;
        self.start().finish_within(limit)
    }

    /// Starts a server on a free port and waits until it says that it is ready.
    pub fn ready(self) -> Server {
        self.ready_on(0)
    }

    /// Starts a server on this port, as after one that has ended, and waits until it says that it is ready.
    pub fn ready_on(self, port: u16) -> Server {
        let begin = Instant::now();
        loop {
            match self.clone().try_ready_on(port) {
                Ok(server) => return server,
                // A connection of another test may have that port at the moment.
                Err(outcome)
                    if port != 0 && outcome.stderr.contains("in use") && begin.elapsed() < PORT_WAIT =>
                {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(outcome) => panic!("dtserver ended: {outcome}"),
            }
        }
    }

    /// Starts a server on a free port and waits until it says that it is ready.
    ///
    /// # Errors
    /// How it ended, if it did so instead.
    pub fn try_ready(self) -> Result<Server, Outcome> {
        self.try_ready_on(0)
    }

    fn try_ready_on(self, port: u16) -> Result<Server, Outcome> {
        let limit = self.limit;
        let mut process = self.args([port.to_string()]).start();
        let line = until("the server's ready line", || {
            // In this order: it may say the line and end at once.
            let has_ended = process.has_ended();
            let stdout = String::from_utf8_lossy(&process.stdout()).into_owned();
            let line = stdout.split_once('\n').map(|(line, _)| line.to_owned());
            (line.is_some() || has_ended).then_some(line)
        });
        let Some(line) = line else { return Err(process.finish_within(limit)) };
        // As text, or as JSON.
        let json = serde_json::from_str(&line).unwrap_or(serde_json::Value::Null);
        let text = || Some(line.strip_prefix("listening on ")?.split_once(", serving ")?.0);
        let addr = json["address"]
            .as_str()
            .or_else(text)
            .and_then(|addr| addr.parse().ok())
            .unwrap_or_else(|| panic!("unexpected ready line {line:?}"));
        Ok(Server { process, addr, line })
    }
}

/// A copy that any user may run: a build folder is often closed to others.
fn copy_for_all(program: &Path) -> TempDir {
    let folder = tempfile::Builder::new().prefix("dt-program-").tempdir().expect("a folder is made");
    let copy = folder.path().join("program");
    fs::copy(program, &copy).expect("the program is copied");
    for path in [folder.path(), &copy] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("opened to all");
    }
    folder
}

/// A `dtserver` that listens; ended when dropped.
#[derive(Debug)]
pub struct Server {
    process: Process,
    /// Where it listens.
    pub addr: SocketAddr,
    /// The line that said so.
    pub line: String,
}

impl Server {
    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Fails if it has ended.
    pub fn assert_alive(&mut self) {
        assert!(!self.process.has_ended(), "the server ended: {}", self.process.stderr());
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&self) {
        self.process.signal(Signal::KILL);
    }

    /// Sends it a signal and waits for its end.
    pub fn stop(self, signal: Signal, limit: Duration) -> Outcome {
        self.process.signal(signal);
        self.process.finish_within(limit)
    }
}
