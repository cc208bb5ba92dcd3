//! What kill -9 of the client costs: bytes that are fetched twice, and the time until new ones come again.
//!
//! `cargo build --release && target/release/bench-resume [FOLDER [SIZE [STREAMS [ROUNDS [MB_PER_SECOND]]]]]`, by default
//! `/dev/shm 2048 8 7 200`. The first run is kept to that rate and killed at a random moment; the second is not kept.
//!
//! Bytes lost are those received in both runs together, but for the size; the second run tells itself what it received. What
//! the first one did is known within bounds. At least: what its last progress event told, or what its journal holds. At
//! most: what the server sent, counted by a proxy in this program, without the frames around the blocks and with what
//! the client had asked for but, being kept to a rate, not read. The first new byte is
//! seen at the latest when the journal grows or a progress event has more bytes received than the first one had.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use dt_benches::arguments::{Arguments, spoken};
use dt_benches::clients::Scene;
use dt_benches::events::{Ended, Running};
use dt_benches::files::{chance, demand_equal, place, random_file};
use dt_benches::product::{Program, Server};
use dt_benches::rounds::Series;
use dt_benches::table::{Table, print_at_most};
use dt_benches::throttle::{Throttle, UNLIMITED, free_port};
use dt_benches::{Failure, float};

/// Blocks that each stream may lose.
const BLOCKS: u64 = 2;

/// Bytes of a block's header and trailer on the way.
const FRAMES: u64 = 64;

/// Bytes of a journal's header, and of each of its records.
const JOURNAL: (u64, usize) = (160, 56);

fn main() -> Result<(), Failure> {
    let mut arguments = Arguments::new("bench-resume [FOLDER [SIZE [STREAMS [ROUNDS [MB_PER_SECOND]]]]]");
    let folder: PathBuf = arguments.next("FOLDER", "/dev/shm".into())?;
    let size = arguments.next_size("SIZE", "2048")?;
    let (streams, rounds): (u16, usize) = (arguments.next("STREAMS", 8)?, arguments.next("ROUNDS", 7)?);
    let rate = arguments.next::<u64>("MB_PER_SECOND", 200)?.saturating_mul(1_000_000);
    let client = Program::find("dtclient")?;
    client.demand(&["--json", "--limit-rate"])?;

    let place = place(&folder)?;
    random_file(&place.path().join("in"), size)?;
    let port = free_port()?;
    let server = Server::start_with(place.path(), &["--data-port", &port.port().to_string()])?;
    let mut scene = Scene::new(place.path(), "in", size, streams)?;
    let (_control, address) = Throttle::before(server.address.parse()?, UNLIMITED)?;
    scene.server = address.to_string();
    let (data, _) = Throttle::before(port, UNLIMITED)?;

    println!(
        "{} in {}, {streams} streams, killed at a random moment, {rounds} rounds\n",
        spoken(size),
        folder.display()
    );
    let mut table = Table::new(&[
        "killed after s",
        "told before",
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
        let round = round(&client, &scene, &data, rate)?;
        demand_equal(&place.path().join("in"), &scene.output.path())?;
        let allowed = BLOCKS.saturating_mul(u64::from(streams)).saturating_mul(round.journal.block);
        let [lost, sent_twice] = [round.told, round.sent].map(|n| (n + round.after).saturating_sub(size));
        least = least.max(float(lost) / float(allowed));
        most = most.max(float(sent_twice) / float(allowed));
        if let Some(restart) = round.restart {
            restarts.add(restart);
        }
        table.row(vec![
            format!("{:.2}", round.killed_after.as_secs_f64()),
            round.told.to_string(),
            round.sent.to_string(),
            round.journal.bytes(size).to_string(),
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
    told: u64,
    sent: u64,
    journal: Journal,
    after: u64,
    restart: Option<Duration>,
}

/// A transfer that is killed, and the one that goes on.
fn round(client: &Program, scene: &Scene, data: &Throttle, rate: u64) -> Result<Round, Failure> {
    scene.output.clear()?;
    data.begin(None);
    let full = float(scene.size) / float(rate);
    let moment = Duration::from_secs_f64(full * (0.1 + 0.8 * chance()?));
    let mut first = Running::start(command(client, scene).args(["--limit-rate", &rate.to_string()]))?;
    thread::sleep(moment.saturating_sub(first.begun.elapsed()));
    if !first.is_running()? {
        let ended = first.wait()?;
        ended.demand()?;
        return Err("the transfer was done before it could be killed".into());
    }
    let killed = first.kill()?;
    // Until the proxy has noticed, too.
    thread::sleep(Duration::from_millis(100));
    let sent = data.handed_on();
    let journal = Journal::read(&scene.output.journal())?;
    // Those of whole blocks, and of one that each stream may have begun.
    let n_frames = sent / (journal.block + FRAMES) + u64::from(scene.streams);
    let sent = sent.saturating_sub(FRAMES * n_frames);
    let progress = killed.last("progress").and_then(|seen| seen.count("received")).unwrap_or(0);
    let told = progress.max(journal.bytes(scene.size));

    let mut second = Running::start(&mut command(client, scene))?;
    let grown = wait_for_growth(&mut second, &scene.output.journal())?;
    let ended = second.wait()?;
    ended.demand()?;
    let finished = ended.last("finished").ok_or("the second run told no end")?;
    let after = finished.count("received").ok_or("the end told no bytes received")?;
    let restart = [grown, more_received(&ended)].into_iter().flatten().min();
    Ok(Round { killed_after: killed.elapsed, told, sent, journal, after, restart })
}

fn command(client: &Program, scene: &Scene) -> Command {
    let mut command = client.command();
    command.args(["--json", &scene.server, &scene.streams.to_string(), &scene.file]);
    command.arg(scene.output.path());
    command
}

/// When the journal became longer than it was, if that was seen before the process ended.
fn wait_for_growth(running: &mut Running, journal: &Path) -> Result<Option<Duration>, Failure> {
    let length = || fs::metadata(journal).map_or(0, |found| found.len());
    let former = length();
    while running.is_running()? {
        if length() > former {
            return Ok(Some(running.begun.elapsed()));
        }
        thread::sleep(Duration::from_micros(500));
    }
    Ok(None)
}

/// When a progress event first had more bytes received than the first one.
fn more_received(ended: &Ended) -> Option<Duration> {
    let mut events = ended.events.iter().filter(|seen| seen.is("progress"));
    let first = events.next()?.count("received")?;
    events.find(|seen| seen.count("received").is_some_and(|received| received > first)).map(|seen| seen.at)
}

/// What a journal tells without its digests.
#[derive(Debug)]
struct Journal {
    block: u64,
    blocks: BTreeSet<u64>,
}

impl Journal {
    fn read(path: &Path) -> Result<Self, Failure> {
        let bytes = fs::read(path).map_err(|error| format!("no journal was left behind: {error}"))?;
        let (header, records) = bytes
            .split_at_checked(usize::try_from(JOURNAL.0)?)
            .ok_or("the journal that was left behind has no whole header")?;
        let block = header.get(12..16).and_then(|field| field.try_into().ok()).map(u32::from_le_bytes);
        let index = |record: &[u8]| Some(u64::from_le_bytes(*record.first_chunk()?));
        let blocks = records.chunks_exact(JOURNAL.1).filter_map(index).collect();
        Ok(Self { block: block.map(u64::from).ok_or("the header is short")?, blocks })
    }

    /// How many bytes of a file of this size its blocks have.
    fn bytes(&self, size: u64) -> u64 {
        let begin = |index: &u64| index.saturating_mul(self.block).min(size);
        self.blocks.iter().map(|index| begin(&index.saturating_add(1)) - begin(index)).sum()
    }
}
