//! The `dtserver` program: serves the files of a directory to `dtclient` and to clients of protocol 1.
//!
//! It is a library with one function, so that tests can build and run the program as their own.

mod args;
mod log;
mod throttle;
mod watch;

use std::fmt;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::thread::available_parallelism;
use std::time::Duration;

use dtcli::{raise_open_files, reason};
use dtcore::{Server, ServerError, available_threads};
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

use args::{Args, LogFormat};
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
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => dtcli::fail("dtserver", &failure.to_string(), failure.exit_code()),
    }
}

fn run(mut args: Args) -> Result<(), Failure> {
    log::start(&args);
    let n_streams = raise_open_files().map_err(Failure::System)?;
    let mut notices = Vec::new();
    // A quarter is for connections that are to be refused: what is not accepted waits, and its client does not learn why.
    let n_streams = usize::try_from(n_streams - n_streams / 4).unwrap_or(usize::MAX);
    if let Some(n_streams) = NonZeroUsize::new(n_streams).filter(|n| *n < args.max_streams) {
        args.max_streams = n_streams;
        notices.push(format!("only {n_streams} streams: no more files may be open (ulimit -n)"));
    }
    let runtime = runtime(&mut notices).map_err(Failure::System)?;
    let result = runtime.block_on(serve(&args, notices));
    runtime.shutdown_timeout(LAST_WAIT);
    result
}

/// As many threads as there are cores, or as there may be.
fn runtime(notices: &mut Vec<String>) -> io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    let n_cores = available_parallelism().map_or(1, usize::from);
    let wanted = n_cores + SPARE_THREADS;
    let n = available_threads(wanted);
    if n < MIN_THREADS {
        return Err(io::Error::other(format!("only {n} threads may be started; raise ulimit -u")));
    }
    if n < wanted {
        notices.push(format!("only {n} threads: no more may be started (ulimit -u)"));
        // One is the log's.
        builder
            .worker_threads(n_cores.min(n - 2))
            .max_blocking_threads((n - 1).saturating_sub(n_cores).max(1));
    }
    builder.enable_all().build()
}

async fn serve(args: &Args, mut notices: Vec<String>) -> Result<(), Failure> {
    // Before the line that says that the server is ready: a signal that is sent after it must find its handler.
    let shutdown = CancellationToken::new();
    let signal = Arc::<OnceLock<_>>::default();
    let exit = |code| std::process::exit(code);
    let _watch = Watch::begin(shutdown.clone(), Arc::clone(&signal), exit).map_err(Failure::System)?;
    let server = Server::bind(args.server_options()).await.map_err(Failure::Start)?;
    let port = server.local_addr().port();
    if args.transfer_ports.is_some_and(|ports| (ports.first()..=ports.last()).contains(&port)) {
        notices.push(format!(
            "port {port} of --transfer-ports is that of the server itself: it carries no transfer of protocol 1"
        ));
    }
    if args.uploads().is_some() && !server.local_addr().ip().to_canonical().is_loopback() {
        notices.push(
            "anybody who reaches this port can write: uploads are taken without authentication".to_owned(),
        );
    }
    let log = log::follow(server.events(), notices, signal).map_err(Failure::System)?;
    announce(&server, args.log_format);
    server.run(shutdown.cancelled()).await;
    // For its last lines; a blocked stderr must not delay the end.
    let _ = tokio::time::timeout(LAST_WAIT, log).await;
    Ok(())
}

/// Prints on stdout that the server is ready; scripts that start it can wait for this line.
fn announce(server: &Server, format: LogFormat) {
    let (address, root) = (server.local_addr(), server.root().display());
    let line = match format {
        LogFormat::Text => format!("listening on {address}, serving {root}"),
        LogFormat::Json => {
            let (address, root) = (address.to_string(), root.to_string());
            serde_json::json!({"event": "listening", "address": address, "root": root}).to_string()
        }
    };
    let mut stdout = io::stdout().lock();
    // A reader that has gone away does not keep the server from serving.
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
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
