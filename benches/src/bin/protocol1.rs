//! Protocol 1 against `md5sum` of the same file, in turn, on tmpfs: what the transfer costs beside its digest.
//!
//! `cargo build --release && target/release/bench-protocol1 [FOLDER [SIZE [ROUNDS]]]`, by default `/dev/shm 1024 7`; a
//! size without a unit is in MiB.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use dt_benches::Failure;
use dt_benches::arguments::{Arguments, human_size};
use dt_benches::clients::{LEGACY, OURS, Scene, demand_ours};
use dt_benches::files::place;
use dt_benches::process::time;
use dt_benches::product::{Program, serve};
use dt_benches::rounds::{Candidate, Series, alternate, named};
use dt_benches::servers::endpoint;
use dt_benches::table::{Unit, print_at_most, print_rates};
use dt_testkit::content::write_random;

/// What all others are compared with.
const LIMIT: &str = "md5sum";

const CACHED: &str = "dtclient, digest cached by the server";
const COLD: &str = "dtclient, server hashes first";

/// After this time the server remembers the digest of a file that has changed.
const SETTLED_AFTER: Duration = Duration::from_millis(2500);

/// A tenth of a second is for what is not the digest.
const BESIDES: f64 = 0.1;

fn main() -> Result<(), Failure> {
    let mut arguments = Arguments::new("bench-protocol1 [FOLDER [SIZE [ROUNDS]]]");
    let folder: PathBuf = arguments.next("FOLDER", "/dev/shm".into())?;
    let size = arguments.next_size("SIZE", "1024")?;
    let rounds = arguments.next("ROUNDS", 7)?;
    let place = place(&folder)?;
    let file = place.path().join("in");
    write_random(&file, size);
    let server = serve(place.path(), &[])?;
    let mut scene = Scene::new(place.path(), "in", size, 8)?;
    scene.server = endpoint(&server);

    println!(
        "{} in {}, 8 streams, {rounds} rounds after one that is not counted\n",
        human_size(size),
        folder.display()
    );
    // A program that knows only protocol 1 has no such option.
    let name = if Program::find("dtclient")?.has("--protocol") { LEGACY } else { OURS };
    let fetch = || scene.run(&mut scene.command(name)?);
    let cold = || {
        // Another modification time is another version to the server's cache; the bytes stay in memory.
        File::options().write(true).open(&file)?.set_modified(SystemTime::now())?;
        // The server remembers no digest of a file that has just changed.
        sleep(SETTLED_AFTER);
        fetch()
    };
    let md5sum = || time(Command::new("md5sum").arg(&file), Duration::from_secs(600));
    // The round that is not counted leaves the digest in the cache for the second candidate, and every cold run
    // leaves the next warm one its digest.
    let candidates: Vec<Candidate<'_>> = vec![
        (LIMIT.to_owned(), Box::new(md5sum)),
        (CACHED.to_owned(), Box::new(fetch)),
        (COLD.to_owned(), Box::new(cold)),
    ];
    let series = alternate(rounds, candidates);
    println!();
    print_rates(&series, size, Unit::GigabytesPerSecond, LIMIT);
    let median = |name: &str| named(&series, name).and_then(Series::median);
    for (name, times) in [(CACHED, 1.25), (COLD, 2.25)] {
        let allowed = median(LIMIT).map_or(f64::NAN, |limit| limit * times + BESIDES);
        print_at_most(
            &format!("median of {name}, over {times} of md5sum's and 0.1 s,"),
            median(name).map(|seconds| seconds / allowed),
            1.0,
            "",
        );
    }
    demand_ours(&series)
}
