//! The `dtclient` program: fetches one file over many streams, verified, into its place.
//!
//! Everything it does is `dtcore`'s; this is the command line, the progress, and the words for people.

mod args;
mod exit;
mod json;
mod progress;
mod resume;

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use dtcli::Signals;
use dtcore::{Download, Event, Events, Report, Transfer};
use tokio::time::{sleep, timeout};

use args::Args;
use exit::Failure;
use progress::{Display, Resumable};

/// How long a cancelled transfer may remove what it made before a second signal counts.
const CLEAN_UP_UNDISTURBED: Duration = Duration::from_millis(500);

/// How long a cancelled transfer may take at most to remove what it made.
const CLEAN_UP: Duration = Duration::from_secs(10);

/// How long the last events of a transfer are waited for.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Runs the program and returns its exit code.
pub fn main() -> ExitCode {
    let args = match dtcli::arguments::<Args>() {
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
    let mut kept = Resumable::AsBefore;
    let result = runtime.block_on(run(&args, &mut kept));
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let outcome = exit::judge(&error, &kept);
            if args.json && outcome.code != exit::USAGE {
                json::failed(outcome.code, &outcome.line);
            }
            dtcli::fail("dtclient", &outcome.line, outcome.code)
        }
    }
}

/// Runs the transfer; when it fails, `kept` says what of it stays to go on with.
async fn run(args: &Args, kept: &mut Resumable) -> Result<(), Failure> {
    // Before the first file is touched: a signal from now on cleans up.
    let caught = Signals::new().map_err(|source| Failure::System { action: "catch signals", source });
    let mut signals = caught?;
    let mut transfer = download(args)?.start();
    let mut events = transfer.take_events();
    let cancel = transfer.cancel_handle();
    let mut display = Display::new(args.verbosity(), args.streams, io::stderr().is_terminal());
    let watch = async {
        if let Some(events) = &mut events {
            while let Some(event) = events.next().await {
                show(args, &mut display, &event);
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
    // What came right before the end.
    while let Some(event) = next_ready(&mut events).await {
        show(args, &mut display, &event);
    }
    display.clear();
    *kept = display.kept();
    let report = outcome?;
    if args.json {
        json::finished(&report);
    }
    display.finish(&report, &args.file.to_string_lossy());
    Ok(())
}

fn show(args: &Args, display: &mut Display, event: &Event) {
    if args.json {
        json::tell(event);
    }
    display.show(event);
}

/// The next event of a transfer that has ended, if there is one; it is not waited for long, whatever became of the transfer.
async fn next_ready(events: &mut Option<Events>) -> Option<Event> {
    timeout(LAST_WORDS, events.as_mut()?.next()).await.ok()?
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
    let is_standard_output = standard_output_names.iter().any(|name| args.output == Path::new(name));
    if is_standard_output && args.json {
        return Err(Failure::JsonAndOutput);
    }
    let mut download = if is_standard_output {
        Download::to_writer(server, file, standard_output()?)
    } else {
        Download::new(server, file, args.output.clone())
    };
    download = download.streams(args.streams).engine(args.engine).connect_timeout(args.connect_timeout);
    download = download.protocol(args.protocol);
    if let Some(rate) = args.limit_rate {
        download = download.limit_rate(rate);
    }
    if let Some(rounds) = args.retries {
        download = download.retries(rounds);
    }
    if args.no_resume {
        download = download.no_resume();
    }
    if args.md5 {
        download = download.md5();
    }
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
