//! The `dtclient` program: fetches one file over many streams, verified, into its place.
//!
//! Everything it does is `dtcore`'s; this is the command line, the progress, and the words for people.

mod args;
mod exit;
mod progress;

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use dtcli::Signals;
use dtcore::{Download, Report, Transfer};

use tokio::time::sleep;

use args::Args;
use exit::Failure;
use progress::Display;

/// How long a cancelled transfer may remove what it made before a second signal counts.
const CLEAN_UP_UNDISTURBED: Duration = Duration::from_millis(500);

/// How long it may take at most.
const CLEAN_UP: Duration = Duration::from_secs(10);

/// Runs the program and returns its exit code.
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return dtcli::usage("dtclient", &error),
    };
    if let Err(source) = dtcli::raise_open_files() {
        return exit::fail(&Failure::System { action: "start", source });
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(source) => return exit::fail(&Failure::System { action: "start the event loop", source }),
    };
    let result = runtime.block_on(run(&args));
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::fail(&error),
    }
}

async fn run(args: &Args) -> Result<(), Failure> {
    // Before the first file is touched: a signal from now on cleans up.
    let caught = Signals::new().map_err(|source| Failure::System { action: "catch signals", source });
    let mut signals = caught?;
    let mut transfer = download(args)?.start();
    let events = transfer.take_events();
    let cancel = transfer.cancel_handle();
    let mut display = Display::new(args.verbosity(), args.streams, io::stderr().is_terminal());
    let watch = async {
        if let Some(mut events) = events {
            while let Some(event) = events.next().await {
                display.show(&event);
            }
        }
        std::future::pending::<Infallible>().await
    };
    let outcome = tokio::select! {
        biased;
        outcome = &mut transfer => outcome.map_err(Failure::from),
        _ = signals.next() => {
            cancel.cancel();
            finish_cancelled(transfer, &mut signals).await
        }
        never = watch => match never {},
    };
    display.clear();
    display.finish(&outcome?, &args.file.to_string_lossy());
    Ok(())
}

/// Waits until a cancelled transfer has cleaned up; a second signal, or too long a wait, ends at once.
///
/// Cleaning up takes milliseconds, so a second signal right behind the first (a key held down) changes nothing.
async fn finish_cancelled(transfer: Transfer, signals: &mut Signals) -> Result<Report, Failure> {
    let insisted = async {
        sleep(CLEAN_UP_UNDISTURBED).await;
        signals.next().await;
    };
    tokio::select! {
        biased;
        outcome = transfer => Ok(outcome?),
        () = insisted => Err(Failure::Abandoned),
        () = sleep(CLEAN_UP) => Err(Failure::Abandoned),
    }
}

fn download(args: &Args) -> Result<Download, Failure> {
    let (server, file) = (args.address.clone(), args.file.clone());
    // The others are names of the same descriptor, which opening by name would write from its beginning.
    let standard_output_names = ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"];
    let mut download = if standard_output_names.iter().any(|name| args.output == Path::new(name)) {
        Download::to_writer(server, file, standard_output()?)
    } else {
        Download::new(server, file, args.output.clone())
    };
    download = download.streams(args.streams).engine(args.engine).connect_timeout(args.connect_timeout);
    if let Some(limit) = args.stall_timeout {
        download = download.stall_timeout(limit).answer_timeout(limit);
    }
    if let Some(checksum) = args.checksum {
        download = download.checksum(checksum);
    }
    if args.no_clobber {
        download = download.no_clobber();
    }
    if args.sync {
        download = download.sync();
    }
    Ok(download)
}

/// Standard output without the line buffer of `io::stdout`, which would cut big writes into small ones.
fn standard_output() -> Result<File, Failure> {
    let owned = io::stdout().as_fd().try_clone_to_owned();
    owned.map(File::from).map_err(|source| Failure::System { action: "write to standard output", source })
}
