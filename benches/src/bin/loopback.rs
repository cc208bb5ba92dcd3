//! One large file over loopback: the product against what the machine can move at best, and against its peers.
//!
//! `cargo build --release && target/release/bench-loopback [--clients NAMES] [--old DIR] [--results FILE] [FOLDER [SIZE
//! [STREAMS [ROUNDS]]]]`, by default `/dev/shm 2048 8 7`; a size without a unit is in MiB. `--old` names a folder with an earlier
//! build of both programs, which takes part; `--results` writes the figures as JSON lines too, from which `bench-chart`
//! draws. Complete processes are timed; only the product verifies.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::path::{Path, PathBuf};

use dt_benches::arguments::{Arguments, human_size};
use dt_benches::clients::{OURS, Scene, UNVERIFIED, best_peer, best_peer_by_median, demand_ours, skipped};
use dt_benches::files::place;
use dt_benches::results::{self, Run};
use dt_benches::rounds::{Series, alternate, named};
use dt_benches::servers::Servers;
use dt_benches::table::{Unit, print_against_old, print_at_least, print_rates};
use dt_benches::{Failure, link};
use dt_testkit::content::write_random;

const USAGE: &str =
    "bench-loopback [--clients NAMES] [--old DIR] [--results FILE] [FOLDER [SIZE [STREAMS [ROUNDS]]]]";

/// The clients that take part, besides the limit.
const CLIENTS: &str = "dtclient,dtclient-1,unverified,globus-url-copy-1,globus-url-copy-4,globus-url-copy-8,\
                       rclone,aria2c,axel,lftp,curl,wget";

/// The limit without and with `fallocate` before: calls of 1 MiB either way.
const LIMITS: [(&str, [&str; 4]); 2] = [
    ("netlimit, populate", ["sendfile", "mmappop", "0", "1024"]),
    ("netlimit, fallocate and populate", ["sendfile", "mmappop", "1", "1024"]),
];

/// The targets in memory: the share of the limit's rate that a transfer must reach, verified and unverified.
const VERIFIED_IN_MEMORY: f64 = 1.0;
const UNVERIFIED_IN_MEMORY: f64 = 1.1;

/// The target on a disk: the share of the rate of the limit with `fallocate`, which the product calls too.
const VERIFIED_ON_DISK: f64 = 0.85;

/// By medians, how many times the rate of the fastest peer, which verifies nothing, a verified transfer must reach.
const LEAD: f64 = 1.1;

/// The least rate, compared with the earlier build.
const NO_WORSE: f64 = 0.97;

fn main() -> Result<(), Failure> {
    let mut arguments = Arguments::new(USAGE);
    let clients = arguments.option("--clients")?.unwrap_or_else(|| CLIENTS.to_owned());
    let results = arguments.option("--results")?.map(PathBuf::from);
    let old = arguments.old()?;
    let folder: PathBuf = arguments.next("FOLDER", "/dev/shm".into())?;
    let size = arguments.next_size("SIZE", "2048")?;
    let streams = arguments.next("STREAMS", 8)?;
    let rounds = arguments.next("ROUNDS", 7)?;

    let place = place(&folder)?;
    let file = place.path().join("in");
    write_random(&file, size);
    let servers = Servers::start(place.path(), &[], old)?;
    let mut scene = Scene::new(place.path(), "in", size, streams)?;
    servers.attach(&mut scene);

    let (human, shown) = (human_size(size), folder.display());
    println!("{human} in {shown}, {streams} streams, {rounds} rounds after one that is not counted\n");
    let mut candidates = scene.candidates(&clients.split(',').collect::<Vec<_>>());
    match link::compile("netlimit", place.path()) {
        Ok(netlimit) => {
            for (name, way) in LIMITS {
                let mut fetch = scene.tool(&netlimit, &file, streams, &way);
                let scene = &scene;
                candidates.push((name.to_owned(), Box::new(move || scene.run(&mut fetch))));
            }
        }
        Err(why) => skipped("netlimit", &why),
    }
    let series = alternate(rounds, candidates);
    println!();
    print_figures(&series, size, results::is_in_memory(&folder)?);
    if let Some(path) = results {
        write(&path, &Run::here("bench-loopback", &folder, size, streams, rounds)?, &series)?;
    }
    demand_ours(&series)
}

/// Prints the table and the targets.
fn print_figures(series: &[Series], size: u64, is_in_memory: bool) {
    let best_of = |name: &str| named(series, name).and_then(Series::best);
    let [(plain, _), (fallocated, _)] = LIMITS;
    let limit = match (best_of(plain), best_of(fallocated)) {
        (Some(without), Some(with)) if with < without => fallocated,
        _ => plain,
    };
    print_rates(series, size, Unit::GigabytesPerSecond, limit);
    let ratio = |name: &str, limit: &str| Some(best_of(limit)? / best_of(name)?);
    if is_in_memory {
        print_at_least("best rate of dtclient over netlimit's", ratio(OURS, plain), VERIFIED_IN_MEMORY, "");
        let unverified = ratio(UNVERIFIED, plain);
        print_at_least("best rate, nothing verified, over netlimit's", unverified, UNVERIFIED_IN_MEMORY, "");
    } else {
        let what = "best rate of dtclient over netlimit's with fallocate";
        print_at_least(what, ratio(OURS, fallocated), VERIFIED_ON_DISK, "");
    }
    let ours = named(series, OURS);
    if let Some(peer) = best_peer_by_median(series) {
        let what = format!("median rate of dtclient over that of the fastest peer, {},", peer.name);
        print_at_least(&what, peer.median().zip(ours.and_then(Series::median)).map(|(a, b)| a / b), LEAD, "");
    }
    if let Some((peer, ratio)) = best_peer(series).and_then(|peer| Some((peer, peer.best()? / ours?.best()?)))
    {
        println!("\nBest rate of dtclient over the best of a peer, {}: {ratio:.3}", peer.name);
    }
    print_against_old(series, NO_WORSE);
}

fn write(path: &Path, run: &Run, series: &[Series]) -> Result<(), Failure> {
    results::write(path, &results::records(run, series))?;
    println!("\nWritten to {}", path.display());
    Ok(())
}
