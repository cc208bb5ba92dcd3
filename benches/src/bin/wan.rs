//! Transfers over an emulated wide-area link: any list of clients, in turn, over one and the same link.
//!
//! `cargo build --release && target/release/bench-wan [SIZE [STREAMS [ROUNDS]]] [--clients A,B,..] [--old DIR]
//! [--limit SECONDS] [OPTIONS OF WANLAB ...]`, for instance `bench-wan 200MB 8 7 --rtt 100 --rate 400`; a size without a unit is
//! in MiB. A transfer that takes longer than the limit, 90 s, has failed. `--old` names a folder with an earlier build of
//! both programs, which takes part. The link is `benches/tools/wanlab.c`, which needs root, `/dev/net/tun`, iproute2 and a
//! C compiler. The time of a small file is given in round trips.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use dt_benches::Failure;
use dt_benches::arguments::{Arguments, human_size};
use dt_benches::clients::{OURS, Scene, best_peer, demand_ours};
use dt_benches::link::{self, Link, congestion_control};
use dt_benches::rounds::{Series, alternate, named};
use dt_benches::table::{
    Table, Unit, print_against_old, print_at_least, print_at_most, print_errors, print_rates,
};
use dt_testkit::content::write_random;

const USAGE: &str =
    "bench-wan SIZE STREAMS ROUNDS [--clients A,B,..] [--old DIR] [--limit SECONDS] [OPTIONS OF WANLAB ...]";

/// The clients that are measured by default: those of many connections, and curl, which is as fast for short transfers.
const CLIENTS: &str = "dtclient,dtclient-1,rclone,aria2c,axel,lftp,curl";

/// The limit of a transfer in seconds: a peer whose connection dies may wait for it for a quarter of an hour.
const LIMIT: &str = "90";

/// Up to this size round trips are counted.
const SMALL: u64 = 64 << 10;

/// The most round trips that a file of one byte may take; a fifth of one is for the process itself.
const ROUND_TRIPS: f64 = 2.2;

/// Up to this size the round trips before the first byte are a large part of a transfer.
const SHORT: u64 = 50_000_000;

/// How many times the rate of the best peer a transfer must reach, if it is short and otherwise.
const SHORT_LEAD: f64 = 1.15;
const LEAD: f64 = 1.0;

/// The least rate, compared with the earlier build.
const NO_WORSE: f64 = 0.97;

fn main() -> Result<(), Failure> {
    let mut arguments = Arguments::new(USAGE);
    match arguments.option(link::INSIDE)? {
        Some(folder) => inside(&PathBuf::from(folder), arguments),
        None => outside(arguments),
    }
}

/// Prepares the file, the servers and the link.
fn outside(mut arguments: Arguments) -> Result<(), Failure> {
    let clients = arguments.option("--clients")?.unwrap_or_else(|| CLIENTS.to_owned());
    let limit = arguments.option("--limit")?.unwrap_or_else(|| LIMIT.to_owned());
    let old = arguments.old()?;
    let size = arguments.next_size("SIZE", "200MB")?;
    let streams: u16 = arguments.next("STREAMS", 8)?;
    let rounds: usize = arguments.next("ROUNDS", 7)?;
    let options = arguments.rest();

    let link = Link::new(old.as_ref())?;
    write_random(&link.folder().join("in"), size);
    let (human, path, control) = (human_size(size), options.join(" "), congestion_control());
    println!(
        "{human}, {streams} streams, {rounds} rounds after one that is not counted, link {path}, {control}\n"
    );
    let rtt = link::figure(&options, "--rtt").unwrap_or(0.0);
    let (rounds, rtt) = (rounds.to_string(), rtt.to_string());
    let mut inside = vec![format!("{size}B"), streams.to_string(), rounds, rtt, clients, limit];
    if let Some(old) = old {
        inside.extend(["--old".to_owned(), old.folder().display().to_string()]);
    }
    link.run(&options, &inside)
}

/// Measures on the client's side.
fn inside(folder: &Path, mut arguments: Arguments) -> Result<(), Failure> {
    let old = arguments.old()?;
    let size = arguments.next_size("SIZE", "")?;
    let (streams, rounds): (u16, usize) = (arguments.next("STREAMS", 8)?, arguments.next("ROUNDS", 7)?);
    let rtt = arguments.next("RTT", 0.0)? / 1e3;
    let clients = arguments.next("CLIENTS", CLIENTS.to_owned())?;
    let mut scene = Scene::new(folder, "in", size, streams)?;
    scene.limit = Duration::from_secs(arguments.next("SECONDS", 0)?);
    link::attach(&mut scene, old.as_ref());
    let names: Vec<&str> = clients.split(',').collect();
    let series = alternate(rounds, scene.candidates(&names));
    println!();
    if size <= SMALL && rtt > 0.0 {
        print_round_trips(&series, rtt);
    } else {
        print_rates(&series, size, Unit::MegabitsPerSecond, OURS);
        if let (Some(peer), Some(ours)) = (best_peer(&series), named(&series, OURS)) {
            let ratio = peer.best().zip(ours.best()).map(|(peer, ours)| peer / ours);
            let what = format!("best rate of dtclient over that of the best peer, {},", peer.name);
            print_at_least(&what, ratio, if size <= SHORT { SHORT_LEAD } else { LEAD }, "");
        }
    }
    print_against_old(&series, NO_WORSE);
    demand_ours(&series)
}

fn print_round_trips(series: &[Series], rtt: f64) {
    let mut table = Table::new(&["what", "best s", "median s", "best round trips", "median round trips"]);
    for one in series {
        let (Some(best), Some(median)) = (one.best(), one.median()) else { continue };
        let figures = [format!("{best:.3}"), format!("{median:.3}")];
        let trips = [best, median].map(|seconds| format!("{:.2}", seconds / rtt));
        table.row([vec![one.name.clone()], figures.to_vec(), trips.to_vec()].concat());
    }
    table.print();
    print_errors(series);
    let ours = named(series, OURS).and_then(Series::best).map(|seconds| seconds / rtt);
    print_at_most("round trips of dtclient", ours, ROUND_TRIPS, "");
}
