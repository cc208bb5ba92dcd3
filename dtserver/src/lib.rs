//! The `dtserver` program: serves the files of a directory to `dtclient` and to clients of protocol 1.
//!
//! It is a library with one function, so that tests can build and run the program as their own.

mod args;
mod log;
mod throttle;
mod watch;

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;
use std::thread::available_parallelism;
use std::time::Duration;

use dtcli::{raise_open_files, reason};
use dtcore::{Server, ServerError, available_threads};
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use args::Args;
use watch::Watch;

/// How many threads the server may use besides one for each core: to read from disks, and for its log.
const SPARE_THREADS: usize = 8;

/// With fewer threads it cannot serve: one that works, one that reads, and one for the log.
const MIN_THREADS: usize = 3;

/// How long threads that wait for a disk may take to end when everything else has ended.
const LAST_WAIT: Duration = Duration::from_millis(500);

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    let args = match dtcli::arguments::<Args>() {
        Ok(args) => args,
        Err(error) => return dtcli::usage("dtserver", &error),
    };
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => dtcli::fail("dtserver", &failure.to_string(), failure.exit_code()),
    }
}

fn run(args: &Args) -> Result<(), Failure> {
    log::start(args);
    let n_streams = raise_open_files().map_err(Failure::System)?;
    if n_streams < u64::try_from(args.max_streams.get()).unwrap_or(u64::MAX) {
        warn!(streams = n_streams, "no more files may be open (ulimit -n): fewer streams than --max-streams");
    }
    let runtime = runtime().map_err(Failure::System)?;
    let result = runtime.block_on(serve(args));
    runtime.shutdown_timeout(LAST_WAIT);
    result
}

/// As many threads as there are cores, or as there may be.
fn runtime() -> io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    let n_cores = available_parallelism().map_or(1, usize::from);
    let wanted = n_cores + SPARE_THREADS;
    let n = available_threads(wanted);
    if n < MIN_THREADS {
        return Err(io::Error::other(format!("only {n} threads may be started; raise ulimit -u")));
    }
    if n < wanted {
        warn!(threads = n, "no more threads may be started (ulimit -u)");
        // One is the log's.
        builder
            .worker_threads(n_cores.min(n - 2))
            .max_blocking_threads((n - 1).saturating_sub(n_cores).max(1));
    }
    builder.enable_all().build()
}

async fn serve(args: &Args) -> Result<(), Failure> {
    // Before the line that says that the server is ready: a signal that is sent after it must find its handler.
    let shutdown = CancellationToken::new();
    let _watch = Watch::begin(shutdown.clone(), |code| std::process::exit(code)).map_err(Failure::System)?;
    let server = Server::bind(args.server_options()).await.map_err(Failure::Start)?;
    let log = log::follow(server.events()).map_err(Failure::System)?;
    announce(&server);
    server.run(shutdown.cancelled()).await;
    // For its last lines; a blocked stderr must not delay the end.
    let _ = tokio::time::timeout(LAST_WAIT, log).await;
    Ok(())
}

/// Prints on stdout that the server is ready; scripts that start it can wait for this line.
fn announce(server: &Server) {
    let mut stdout = io::stdout().lock();
    // A reader that has gone away does not keep the server from serving.
    let _ = writeln!(stdout, "listening on {}, serving {}", server.local_addr(), server.root().display());
    let _ = stdout.flush();
}

/// Why the program ends with an exit code other than 0.
#[derive(Debug)]
enum Failure {
    Start(ServerError),
    System(io::Error),
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Start(ServerError::Root { .. } | ServerError::Unconfined { .. }) => 8,
            Self::Start(_) | Self::System(_) => 1,
        }
    }
}

/// One line: what failed, where, why, and what to do about it.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(error @ ServerError::Listen { source, .. }) => {
                write!(f, "{error}: {}", listen_advice(source))
            }
            Self::Start(error @ ServerError::Root { source, .. }) => {
                write!(f, "{error}: {}; choose another directory with --root", reason(source))
            }
            Self::Start(error) => write!(f, "{error}"),
            Self::System(error) => write!(f, "cannot start: {}", reason(error)),
        }
    }
}

fn listen_advice(error: &io::Error) -> String {
    use io::ErrorKind::{AddrInUse, AddrNotAvailable, PermissionDenied};
    let advice = [
        (AddrInUse, "address already in use; choose another port or stop the program that holds it"),
        (PermissionDenied, "permission denied; choose a port from 1024 up"),
        (AddrNotAvailable, "this machine does not have the address; choose another with --bind"),
    ];
    let advice = advice.into_iter().find(|(kind, _)| *kind == error.kind());
    advice.map_or_else(|| reason(error), |(_, advice)| advice.to_owned())
}
