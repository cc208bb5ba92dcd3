//! What kill -9 of the client costs: bytes that are fetched twice, and the time until new ones arrive.
//!
//! `cargo build --release && target/release/bench-resume [FOLDER [SIZE [STREAMS [ROUNDS [MB_PER_SECOND]]]]]`, by default
//! `/dev/shm 2048 8 7 200`. The first run is kept to that rate and killed at a random moment; the second is not kept.
//!
//! Bytes lost are those received in both runs together, less the size; the second run reports what it received. What the
//! first one received is known within bounds. At least: what its last progress event reported, or what its journal holds. At
//! most: what the server sent, counted by a forwarder in this program, without the digests of the blocks and with what the
//! client had requested but, being kept to a rate, not read. The first new byte is seen at the latest when the journal grows
//! or a progress event has more bytes received than the first one had.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use dt_benches::arguments::{Arguments, human_size};
use dt_benches::clients::Scene;
use dt_benches::files::{chance, place};
use dt_benches::product::{Program, finish, serve, start};
use dt_benches::rounds::Series;
use dt_benches::table::{Table, print_at_most};
use dt_benches::{Failure, float};
use dt_testkit::content::{assert_same_file, write_random};
use dt_testkit::events::{Events, number};
use dt_testkit::forwarder::Forwarder;
use dt_testkit::journal::Journal;
use dt_testkit::process::{Outcome, Process};
use rustix::process::Signal;

/// Blocks that each stream may lose.
const BLOCKS: u64 = 2;

/// Bytes of a block's digest on the wire; the headers and trailers of runs are not worth counting.
const DIGEST: u64 = 32;

fn main() -> Result<(), Failure> {
    let mut arguments = Arguments::new("bench-resume [FOLDER [SIZE [STREAMS [ROUNDS [MB_PER_SECOND]]]]]");
    let folder: PathBuf = arguments.next("FOLDER", "/dev/shm".into())?;
    let size = arguments.next_size("SIZE", "2048")?;
    let (streams, rounds): (u16, usize) = (arguments.next("STREAMS", 8)?, arguments.next("ROUNDS", 7)?);
    let rate = arguments.next::<u64>("MB_PER_SECOND", 200)?.saturating_mul(1_000_000);
    let client = Program::find("dtclient")?;
    client.demand(&["--json", "--limit-rate"])?;

    let place = place(&folder)?;
    write_random(&place.path().join("in"), size);
    let server = serve(place.path(), &[])?;
    let mut scene = Scene::new(place.path(), "in", size, streams)?;
    let forwarder = Forwarder::start(server.addr);
    scene.server = forwarder.addr.to_string().into();

    println!(
        "{} in {}, {streams} streams, killed at a random moment, {rounds} rounds\n",
        human_size(size),
        folder.display()
    );
    let mut table = Table::new(&[
        "killed after s",
        "reported before",
        "sent before",
        "journalled",
        "received after",
        "lost at least",
        "at most",
        "allowed",
        "first new byte, ms",
    ]);
    let (mut least, mut most, mut restarts) = (0.0_f64, 0.0_f64, Series::new("first new byte"));
    for _ in 0..rounds {
        let round = round(&client, &scene, &forwarder, rate)?;
        assert_same_file(&place.path().join("in"), &scene.output.path());
        let allowed = BLOCKS.saturating_mul(u64::from(streams)).saturating_mul(round.block);
        let [lost, sent_twice] = [round.reported, round.sent].map(|n| (n + round.after).saturating_sub(size));
        least = least.max(float(lost) / float(allowed));
        most = most.max(float(sent_twice) / float(allowed));
        if let Some(restart) = round.restart {
            restarts.add(restart);
        }
        table.row(vec![
            format!("{:.2}", round.killed_after.as_secs_f64()),
            round.reported.to_string(),
            round.sent.to_string(),
            round.journalled.to_string(),
            round.after.to_string(),
            lost.to_string(),
            sent_twice.to_string(),
            allowed.to_string(),
            round.restart.map_or_else(|| "-".to_owned(), |time| format!("{:.1}", time.as_secs_f64() * 1e3)),
        ]);
    }
    table.print();
    if let (Some(best), Some(median)) = (restarts.best(), restarts.median()) {
        println!("\nFirst new byte: best {:.1} ms, median {:.1} ms", best * 1e3, median * 1e3);
    }
    print_at_most("bytes certainly received twice, over two blocks for each stream,", Some(least), 1.0, "");
    print_at_most("bytes sent twice, over two blocks for each stream,", Some(most), 1.0, "");
    Ok(())
}

struct Round {
    killed_after: Duration,
    reported: u64,
    sent: u64,
    block: u64,
    journalled: u64,
    after: u64,
    restart: Option<Duration>,
}

/// A transfer that is killed, and the one that resumes it.
fn round(client: &Program, scene: &Scene, forwarder: &Forwarder, rate: u64) -> Result<Round, Failure> {
    scene.output.clear()?;
    forwarder.begin(None);
    let full = float(scene.size) / float(rate);
    let moment = Duration::from_secs_f64(full * (0.1 + 0.8 * chance()?));
    let mut limited = command(client, scene);
    limited.args(["--limit-rate", &rate.to_string()]);
    let mut first = start(limited);
    thread::sleep(moment.saturating_sub(first.elapsed()));
    if first.has_ended() {
        finish(first)?;
        return Err("the transfer was done before it could be killed".into());
    }
    first.signal(Signal::KILL);
    let killed = first.finish_within(Duration::from_secs(60));
    // Until the forwarder has noticed, too.
    thread::sleep(Duration::from_millis(100));
    let sent = forwarder.forwarded();
    let journal = Journal::read(&scene.output.journal()).ok_or("the killed client left no journal")?;
    let block = u64::from(journal.header().block);
    let journalled = bytes_of(&journal, block, scene.size);
    // Those of complete blocks, and of one that each stream may have begun.
    let n_digests = sent / (block + DIGEST) + u64::from(scene.streams);
    let sent = sent.saturating_sub(DIGEST * n_digests);
    let reported =
        Events::so_far(&killed.stdout).last("progress").map_or(0, |event| number(event, "received"));

    let mut second = start(command(client, scene));
    let grown = wait_for_growth(&mut second, &scene.output.journal());
    let outcome = finish(second)?;
    let after = number(Events::of(&outcome).finished(), "received");
    let restart = [grown, more_received(&outcome)].into_iter().flatten().min();
    let reported = reported.max(journalled);
    Ok(Round { killed_after: killed.took, reported, sent, block, journalled, after, restart })
}

fn command(client: &Program, scene: &Scene) -> Command {
    let mut command = client.command();
    command.args(["--json", &scene.server.address, &scene.streams.to_string(), &scene.file]);
    command.arg(scene.output.path());
    command
}

/// When the journal became longer than it was, if that was seen before the process ended.
fn wait_for_growth(client: &mut Process, journal: &Path) -> Option<Duration> {
    let length = || fs::metadata(journal).map_or(0, |found| found.len());
    let former = length();
    while !client.has_ended() {
        if length() > former {
            return Some(client.elapsed());
        }
        thread::sleep(Duration::from_micros(500));
    }
    None
}

/// When a progress event first had more bytes received than the first one, by the clock of the client.
fn more_received(outcome: &Outcome) -> Option<Duration> {
    let events = Events::of(outcome);
    let mut progress = events.named("progress").into_iter();
    let first = number(progress.next()?, "received");
    let more = progress.find(|event| number(event, "received") > first)?;
    Duration::try_from_secs_f64(more.get("seconds")?.as_f64()?).ok()
}

/// How many bytes of a file of this size the recorded blocks have.
fn bytes_of(journal: &Journal, block: u64, size: u64) -> u64 {
    let blocks: BTreeSet<u64> = journal.records.iter().map(|record| record.block).collect();
    let begin = |index: &u64| index.saturating_mul(block).min(size);
    blocks.iter().map(|index| begin(&index.saturating_add(1)) - begin(index)).sum()
}
