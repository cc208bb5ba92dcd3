//! The `dtclient` program: downloads a file over parallel streams, and verifies it.
//!
//! The transfer is `dtcore`'s; this is the command line, the progress, and the messages.

mod args;
mod exit;
mod json;

mod progress;
mod progress_line;
mod resume;
mod summary;
mod units;

use std::path::Path;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use dtcli::{Signals, StandardOutput};
use dtcore::{CancelHandle, Client, ErrorKind, Event, Events, Report, Transfer, TransferError};
use tokio::time::{interval, sleep, timeout};

use args::Args;
use exit::{Failure, Outcome};
use json::EventPrinter;
use progress::{Display, Resumable};

/// How long a cancelled transfer may clean up before a second signal counts.
const SIGNALS_IGNORED_FOR: Duration = Duration::from_millis(500);

/// How long a cancelled transfer may clean up at most.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(10);

/// How often the display shows how long something takes.
const DISPLAY_INTERVAL: Duration = Duration::from_secs(1);

/// How long the last events of a transfer are awaited.
const LAST_EVENTS_TIMEOUT: Duration = Duration::from_millis(200);

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
    let mut printer = match args.json.then(EventPrinter::open).transpose() {
        Ok(printer) => printer,
        Err(error) => return exit::fail(&Failure::StandardOutput(error)),
    };
    let mut resumable = Resumable::Unchanged;
    let result = runtime.block_on(run(&args, &mut printer, &mut resumable));
    runtime.shutdown_background();
    let outcome = result.and_then(|report| match printer.take() {
        Some(printer) => printer.finished(&report).map_err(Failure::StandardOutput),
        None => Ok(()),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let Outcome { exit, code, line } = exit::outcome(&error, &resumable);
            if let Some(printer) = printer.filter(|_| exit != exit::USAGE) {
                printer.failed(exit, code, &line);
            }
            dtcli::fail("dtclient", &line, exit)
        }
    }
}

/// A transfer, whatever its output.
struct Running {
    outcome: Pin<Box<dyn Future<Output = Result<Report, TransferError>>>>,
    events: Option<Events>,
    cancel: CancelHandle,
}

impl Running {
    fn new<T: 'static>(mut transfer: Transfer<T>, report: fn(T) -> Report) -> Self {
        let (events, cancel) = (transfer.take_events(), transfer.cancel_handle());
        Self { outcome: Box::pin(async move { transfer.await.map(report) }), events, cancel }
    }
}

/// Runs the transfer; when it fails, `resumable` says what it leaves to resume.
async fn run(
    args: &Args,
    printer: &mut Option<EventPrinter>,
    resumable: &mut Resumable,
) -> Result<Report, Failure> {
    // Before the first file is touched: a signal from now on cleans up.
    let caught = Signals::new().map_err(|source| Failure::System { action: "catch signals", source });
    let mut signals = caught?;
    let Running { mut outcome, mut events, cancel } = start(args)?;
    let mut display = Display::new(args);
    let watch = async {
        let mut ticks = interval(DISPLAY_INTERVAL);
        loop {
            tokio::select! {
                Some(event) = next(&mut events) => show(printer, &mut display, &event),
                _ = ticks.tick() => display.update(),
            }
        }
    };
    let outcome = tokio::select! {
        biased;
        outcome = &mut outcome => outcome.map_err(Failure::from),
        exit = signals.next() => {
            cancel.cancel();
            finish_cancelled(outcome, &mut signals, u8::try_from(exit).unwrap_or(u8::MAX)).await
        }
        never = watch => never,
    };
    // What was sent right before the end.
    while let Some(event) = next_ready(&mut events).await {
        show(printer, &mut display, &event);
    }
    display.clear();
    *resumable = display.resumable();
    let report = outcome?;
    display.finish(&report);
    Ok(report)
}

fn show(printer: &mut Option<EventPrinter>, display: &mut Display<'_>, event: &Event) {
    display.show(event);
    if let Some(printer) = printer {
        printer.event(event, display.rate());
    }
}

/// The next event of a transfer, if there is one.
async fn next(events: &mut Option<Events>) -> Option<Event> {
    events.as_mut()?.next().await
}

/// The next event of a transfer that has ended, if any; awaited for a short time only, because a transfer that was abandoned
/// may still hold its end.
async fn next_ready(events: &mut Option<Events>) -> Option<Event> {
    timeout(LAST_EVENTS_TIMEOUT, next(events)).await.ok()?
}

/// Waits until a cancelled transfer has cleaned up, or until a second signal or the timeout.
///
/// Cleaning up takes milliseconds, so a second signal right after the first (a key held down) changes nothing.
async fn finish_cancelled(
    outcome: impl Future<Output = Result<Report, TransferError>>,
    signals: &mut Signals,
    exit: u8,
) -> Result<Report, Failure> {
    let insisted = async {
        sleep(SIGNALS_IGNORED_FOR).await;
        signals.next().await;
    };
    tokio::select! {
        biased;
        outcome = outcome => outcome.map_err(|error| {
            if error.kind() == ErrorKind::Cancelled { Failure::Interrupted { exit } } else { error.into() }
        }),
        () = insisted => Err(Failure::Abandoned { exit }),
        () = sleep(CLEANUP_TIMEOUT) => Err(Failure::Abandoned { exit }),
    }
}

/// Starts the transfer.
fn start(args: &Args) -> Result<Running, Failure> {
    // The others are names of the same descriptor; opened by name, it would be written from its beginning.
    let standard_output_names = ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"];
    let output = args.output().ok_or(Failure::NoName)?;
    let is_standard_output = standard_output_names.iter().any(|name| output == Path::new(name));
    if is_standard_output && args.json {
        return Err(Failure::JsonAndOutput);
    }
    let builder = Client::builder(args.address.clone()).streams(args.streams).protocol(args.protocol);
    let mut builder = builder.connect_timeout(args.connect_timeout);
    if let Some(rate) = args.limit_rate {
        builder = builder.rate_limit(rate);
    }
    if let Some(limit) = args.retry_time {
        builder = builder.retry_time(limit);
    }
    if let Some(rounds) = args.retries {
        builder = builder.retries(rounds);
    }
    if let Some(limit) = args.stall_timeout {
        builder = builder.stall_timeout(limit).answer_timeout(limit);
    }
    let download = builder.build()?.download(&args.file).engine(args.engine).md5(args.md5);
    let download = download.overwrite(!args.no_clobber).resume(!args.no_resume).fsync(args.sync);
    let download =
        download.preserve_times(!args.no_preserve).preserve_mode(args.preserve_mode).growth(!args.no_growth);
    let download = match args.checksum {
        Some(checksum) => download.checksum(checksum),
        None => download,
    };
    Ok(if is_standard_output {
        Running::new(
            download.to_writer(StandardOutput::open().map_err(Failure::StandardOutput)?),
            |(report, _)| report,
        )
    } else {
        Running::new(download.to_path(output), |report| report)
    })
}
