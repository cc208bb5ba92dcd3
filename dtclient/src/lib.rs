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
use dtcore::{Download, Report, Transfer, TransferError};

use args::Args;
use exit::Failure;
use progress::Display;

/// How long a cancelled transfer may take to remove what it made.
const CLEAN_UP: Duration = Duration::from_secs(10);

/// Runs the program and returns its exit code.
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return dtcli::usage("dtclient", &error),
    };
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
        outcome = &mut transfer => outcome,
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

/// Waits until a cancelled transfer has cleaned up; a second signal, or a moment without an end, ends at once.
async fn finish_cancelled(transfer: Transfer, signals: &mut Signals) -> Result<Report, TransferError> {
    tokio::select! {
        outcome = transfer => outcome,
        _ = signals.next() => Err(TransferError::Cancelled),
        () = tokio::time::sleep(CLEAN_UP) => Err(TransferError::Cancelled),
    }
}

fn download(args: &Args) -> Result<Download, Failure> {
    let (server, file) = (args.address.clone(), args.file.clone());
    let mut download = if args.output == Path::new("-") {
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
