//! A file of one byte over loopback: what a transfer costs besides its bytes.
//!
//! `cargo build --release && target/release/bench-small [--old DIR] [FOLDER [STREAMS [ROUNDS]]]`, by default `/dev/shm 8 50`.
//! Complete processes are timed. `--old` names a folder with an earlier build of both programs, which takes part.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::fs;
use std::path::PathBuf;

use dt_benches::Failure;
use dt_benches::arguments::Arguments;
use dt_benches::clients::{LEGACY, OURS, Scene, demand_ours};
use dt_benches::files::place;
use dt_benches::rounds::{Series, alternate, named};
use dt_benches::servers::Servers;
use dt_benches::table::{Table, print_against_old, print_at_most, print_errors};

/// The most that it may take, in ms.
const ALLOWED: f64 = 15.0;

/// No slower than the earlier build, to a hundredth: medians of 50 processes of 3 ms differ by that much.
const NO_SLOWER: f64 = 0.99;

fn main() -> Result<(), Failure> {
    let mut arguments = Arguments::new("bench-small [--old DIR] [FOLDER [STREAMS [ROUNDS]]]");
    let old = arguments.old()?;
    let folder: PathBuf = arguments.next("FOLDER", "/dev/shm".into())?;
    let (streams, rounds) = (arguments.next("STREAMS", 8)?, arguments.next("ROUNDS", 50)?);
    let place = place(&folder)?;
    fs::write(place.path().join("in"), "x")?;
    let servers = Servers::start(place.path(), &[], old)?;
    let mut scene = Scene::new(place.path(), "in", 1, streams)?;
    servers.attach(&mut scene);

    println!(
        "1 B in {}, {streams} streams, {rounds} rounds after one that is not counted\n",
        folder.display()
    );
    let names = [OURS, LEGACY, "globus-url-copy-1", "rclone", "aria2c", "axel", "lftp", "curl", "wget"];
    let series = alternate(rounds, scene.candidates(&names));
    println!();
    let mut table = Table::new(&["what", "best ms", "median ms", "worst ms", "failed"]);
    for one in &series {
        let times = [one.best(), one.median(), one.worst()];
        let times = times.map(|time| time.map_or_else(|| "-".to_owned(), |s| format!("{:.2}", s * 1e3)));
        table.row([vec![one.name.clone()], times.to_vec(), vec![one.n_failed.to_string()]].concat());
    }
    table.print();
    print_errors(&series);
    let median = named(&series, OURS).and_then(Series::median).map(|seconds| seconds * 1e3);
    print_at_most("median of dtclient", median, ALLOWED, " ms");
    print_against_old(&series, NO_SLOWER);
    demand_ours(&series)
}
