//! The `dtclient` program: moves files over parallel streams, and verifies them.
//!
//! The transfers are `dtcore`'s; this is the command line, the progress, and the messages.

mod args;
mod dates;
mod exit;
mod json;
mod list;
mod notices;
mod progress;
mod progress_line;
mod resume;
mod running;
mod start;
mod stat;
mod summary;
mod transfer;
mod tree_line;
mod units;

use std::env;
use std::process::ExitCode;

use tokio::runtime::{Builder, Runtime};

use args::{Args, GetArgs, ListArgs, PutArgs, StatArgs};
use exit::{Failure, Outcome, USAGE};
use json::EventPrinter;
use progress::Resumable;
use start::Start;

/// Runs the program and returns its exit code.
pub fn main() -> ExitCode {
    let command = env::args_os().nth(1);
    match command.as_ref().and_then(|command| command.to_str()) {
        Some("get") => with_args("dtclient get", |args: GetArgs| Ok(run_all(&args.fetches()?))),
        Some("put") => with_args("dtclient put", |args: PutArgs| Ok(run_all(&args.puts()?))),
        Some("ls") => with_args("dtclient ls", |args: ListArgs| Ok(list::run(&args))),
        Some("stat") => with_args("dtclient stat", |args: StatArgs| Ok(stat::run(&args))),
        _ => match dtcli::arguments::<Args>() {
            Ok(args) => run_all(&[args.fetch()]),
            Err(error) => dtcli::usage("dtclient", &error),
        },
    }
}

/// Runs a command with the arguments after its name.
fn with_args<T: clap::Parser>(
    name: &'static str,
    run: impl FnOnce(T) -> Result<ExitCode, String>,
) -> ExitCode {
    match dtcli::arguments_of::<T>(name, env::args_os().skip(2)) {
        Ok(args) => run(args)
            .unwrap_or_else(|error| dtcli::fail("dtclient", &format!("{error}; try '{name} --help'"), USAGE)),
        Err(error) => dtcli::usage(name, &error),
    }
}

/// What every command needs before it starts.
fn prepare() -> Result<Runtime, Failure> {
    dtcli::raise_open_files().map_err(|source| Failure::System { action: "start", source })?;
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Failure::System { action: "start the event loop", source })
}

/// Runs transfers one after the other, until one is interrupted; the exit code is that of the first that fails.
fn run_all<T: Start>(transfers: &[T]) -> ExitCode {
    let runtime = match prepare() {
        Ok(runtime) => runtime,
        Err(failure) => return exit::fail(&failure),
    };
    let mut first = None;
    for transfer in transfers {
        let (code, is_interrupted) = run_one(&runtime, transfer);
        first = first.or(Some(code).filter(|code| *code != 0));
        if is_interrupted {
            break;
        }
    }
    runtime.shutdown_background();
    ExitCode::from(first.unwrap_or(0))
}

/// Runs a transfer; returns the exit code, and whether a signal has ended it.
fn run_one(runtime: &Runtime, task: &impl Start) -> (u8, bool) {
    let mut printer = match task.common().json.then(EventPrinter::open).transpose() {
        Ok(printer) => printer,
        Err(error) => {
            let Outcome { exit, line, .. } =
                exit::outcome(&Failure::StandardOutput(error), &Resumable::Unchanged);
            dtcli::fail("dtclient", &line, exit);
            return (exit, false);
        }
    };
    let mut resumable = Resumable::Unchanged;
    let result = runtime.block_on(transfer::run(task, &mut printer, &mut resumable));
    let outcome = result.and_then(|done| match printer.take() {
        Some(printer) => printer.finished(&done).map_err(Failure::StandardOutput).map(|()| done.exit_code()),
        None => Ok(done.exit_code()),
    });
    let error = match outcome {
        Ok(exit) => return (exit, false),
        Err(error) => error,
    };
    let Outcome { exit, code, line } = exit::outcome(&error, &resumable);
    if let Some(printer) = printer.filter(|_| exit != USAGE) {
        printer.failed(exit, code, &line);
    }
    dtcli::fail("dtclient", &line, exit);
    (exit, matches!(error, Failure::Interrupted { .. } | Failure::Abandoned { .. }))
}
