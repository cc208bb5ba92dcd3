//! Runs a transfer: shows its events, and ends it on a signal.

use std::time::Duration;

use dtcli::Signals;
use dtcore::{ErrorKind, Event, Events, TransferError};
use tokio::time::{interval, sleep, timeout};

use crate::exit::Failure;
use crate::json::EventPrinter;
use crate::progress::{Display, Resumable};
use crate::running::{Done, Running};
use crate::start::Start;

/// How long a cancelled transfer may clean up before a second signal counts.
const SIGNALS_IGNORED_FOR: Duration = Duration::from_millis(500);

/// How long a cancelled transfer may clean up at most.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(10);

/// How often the display shows how long something takes.
const DISPLAY_INTERVAL: Duration = Duration::from_secs(1);

/// How long the last events of a transfer are awaited.
const LAST_EVENTS_TIMEOUT: Duration = Duration::from_millis(200);

/// Runs the transfer; when it fails, `resumable` says what it leaves to resume.
pub(crate) async fn run(
    task: &impl Start,
    printer: &mut Option<EventPrinter>,
    resumable: &mut Resumable,
) -> Result<Done, Failure> {
    // Before the first file is touched: a signal from now on cleans up.
    let caught = Signals::new().map_err(|source| Failure::System { action: "catch signals", source });
    let mut signals = caught?;
    let Running { mut outcome, mut events, cancel } = task.start()?;
    let mut display = Display::new(task.view(), task.common().verbosity());
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
    let done = outcome?;
    display.finish(&done);
    Ok(done)
}

fn show(printer: &mut Option<EventPrinter>, display: &mut Display, event: &Event) {
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
    outcome: impl Future<Output = Result<Done, TransferError>>,
    signals: &mut Signals,
    exit: u8,
) -> Result<Done, Failure> {
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
