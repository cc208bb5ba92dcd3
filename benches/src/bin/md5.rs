//! How long after the last byte a transfer with `--md5` is done, over a path that is slower than the digest.
//!
//! `cargo build --release && target/release/bench-md5 [SIZE [STREAMS [ROUNDS [OPTIONS OF WANLAB ...]]]]`, by default
//! `1024 8 7 --rtt 1 --rate 1000`; a size without a unit is in MiB. Needs what `bench-wan` needs.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use dt_benches::Failure;
use dt_benches::arguments::{Arguments, human_size};
use dt_benches::clients::{OURS, Scene, demand_ours, skipped};
use dt_benches::link::{self, Link, congestion_control};
use dt_benches::product::{Program, after_last_byte, finish, start};
use dt_benches::rounds::{Candidate, Sample, Series, alternate, named};
use dt_benches::table::{Table, print_at_most, print_errors};
use dt_testkit::content::write_random;
use dt_testkit::events::{Events, number};
use dt_testkit::process::Outcome;

/// The most that may pass between the last byte and the end, in ms.
const ALLOWED: f64 = 100.0;

/// The product when it computes the MD5.
const WITH: &str = "dtclient --md5";

fn main() -> Result<(), Failure> {
    let mut arguments = Arguments::new("bench-md5 [SIZE [STREAMS [ROUNDS [OPTIONS OF WANLAB ...]]]]");
    match arguments.option(link::INSIDE)? {
        Some(folder) => inside(&PathBuf::from(folder), arguments),
        None => outside(arguments),
    }
}

fn outside(mut arguments: Arguments) -> Result<(), Failure> {
    let size = arguments.next_size("SIZE", "1024")?;
    let (streams, rounds): (u16, usize) = (arguments.next("STREAMS", 8)?, arguments.next("ROUNDS", 7)?);
    let mut options = arguments.rest();
    if options.is_empty() {
        options = ["--rtt", "1", "--rate", "1000"].map(str::to_owned).to_vec();
    }
    let link = Link::new(None)?;
    write_random(&link.folder().join("in"), size);
    let (human, path, control) = (human_size(size), options.join(" "), congestion_control());
    println!(
        "{human}, {streams} streams, {rounds} rounds after one that is not counted, link {path}, {control}\n"
    );
    link.run(&options, &[format!("{size}B"), streams.to_string(), rounds.to_string()])
}

fn inside(folder: &Path, mut arguments: Arguments) -> Result<(), Failure> {
    let size = arguments.next_size("SIZE", "")?;
    let (streams, rounds): (u16, usize) = (arguments.next("STREAMS", 8)?, arguments.next("ROUNDS", 7)?);
    let mut scene = Scene::new(folder, "in", size, streams)?;
    link::attach(&mut scene, None);
    let client = Program::find("dtclient")?;
    let mut candidates: Vec<Candidate<'_>> = Vec::new();
    let kinds = [(WITH, &["--md5"][..]), (OURS, &[]), ("dtclient --protocol 1", &["--protocol", "1"])];
    for (name, options) in kinds {
        if let Err(why) = client.demand(options.get(..1).unwrap_or_default()) {
            skipped(name, &why);
            continue;
        }
        let (scene, client, file) = (&scene, &client, folder.join("in"));
        let run = move || {
            // Another modification time is another version, of which the server knows no digest.
            File::options().write(true).open(&file)?.set_modified(SystemTime::now())?;
            time_after_last_byte(scene, client, options).map(Sample::from)
        };
        candidates.push((name.to_owned(), Box::new(run)));
    }
    let series = alternate(rounds, candidates);
    println!();
    let mut table = Table::new(&["what", "best ms", "median ms", "worst ms", "failed"]);
    for one in &series {
        let times = [one.best(), one.median(), one.worst()];
        let times = times.map(|time| time.map_or_else(|| "-".to_owned(), |s| format!("{:.1}", s * 1e3)));
        table.row([vec![one.name.clone()], times.to_vec(), vec![one.n_failed.to_string()]].concat());
    }
    println!("From the last byte to the end of the transfer:\n");
    table.print();
    print_errors(&series);
    let median = named(&series, WITH).and_then(Series::median).map(|seconds| seconds * 1e3);
    print_at_most("median with --md5", median, ALLOWED, " ms");
    demand_ours(&series)
}

/// One transfer: the time from its last byte to its end.
fn time_after_last_byte(scene: &Scene, client: &Program, options: &[&str]) -> Result<Duration, Failure> {
    scene.output.clear()?;
    let mut command = client.command();
    command.args(options).arg("--verbose");
    if client.has("--json") {
        command.arg("--json");
    }
    command.args([&scene.server.address, &scene.streams.to_string(), &scene.file]).arg(scene.output.path());
    let outcome = finish(start(command))?;
    scene.output.demand(scene.size)?;
    // Progress events are rare, so what the program itself reports is more accurate.
    after_last_byte(&outcome.stderr)
        .or_else(|| from_events(&outcome, scene.size))
        .ok_or_else(|| "the transfer did not report when its last byte arrived".into())
}

/// From the first progress with all bytes to the end, by the clock of the program itself.
fn from_events(outcome: &Outcome, size: u64) -> Option<Duration> {
    let events = Events::of(outcome);
    let progress = events.named("progress");
    let received =
        progress.iter().find(|event| number(event, "received") == size)?.get("seconds")?.as_f64()?;
    let finished = events.last("finished")?.get("seconds")?.as_f64()?;
    Duration::try_from_secs_f64(finished - received).ok()
}
