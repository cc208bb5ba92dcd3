//! Files of growing size over loopback: the time has to grow with the size, and with nothing else.
//!
//! `cargo build --release && target/release/bench-linear [--holes] [--old DIR] [FOLDER [STREAMS [ROUNDS [SIZES
//! ...]]]]`, by default `/dev/shm 8 7 1MiB 16MiB 256MiB 1GiB 4GiB 16GiB`; sizes for which there is no room are printed as skipped.
//! With `--holes` the files are holes, which take no room. `--old` names a folder with an earlier build of both programs,
//! which takes part.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::path::{Path, PathBuf};

use dt_benches::Failure;
use dt_benches::arguments::{Arguments, human_size, size};
use dt_benches::clients::{OLD, OURS, Scene, demand_ours};
use dt_benches::files::place;
use dt_benches::product::{serve, serve_with};
use dt_benches::rounds::{Candidate, Series, alternate};
use dt_benches::servers::{endpoint, old};
use dt_benches::table::{Table, Unit, print_errors};
use dt_testkit::content::{write_hole, write_random};
use dt_testkit::workspace::free;

const SIZES: [&str; 6] = ["1MiB", "16MiB", "256MiB", "1GiB", "4GiB", "16GiB"];

fn main() -> Result<(), Failure> {
    let mut arguments =
        Arguments::new("bench-linear [--holes] [--old DIR] [FOLDER [STREAMS [ROUNDS [SIZES ...]]]]");
    let old_programs = arguments.old()?;
    let sources = if arguments.flag("--holes") { Sources::Holes } else { Sources::Random };
    let folder: PathBuf = arguments.next("FOLDER", "/dev/shm".into())?;
    let (streams, rounds): (u16, usize) = (arguments.next("STREAMS", 8)?, arguments.next("ROUNDS", 7)?);
    let mut asked = arguments.rest();
    if asked.is_empty() {
        asked = SIZES.map(str::to_owned).to_vec();
    }
    let mut sizes =
        asked.iter().map(|text| size(text)).collect::<Option<Vec<u64>>>().ok_or("SIZES are like 16MiB")?;
    sizes.sort_unstable();

    println!("{}, {streams} streams, {rounds} rounds after one that is not counted", folder.display());
    println!("{}\n", sources.description());
    let place = place(&folder)?;
    let sizes = make_files(place.path(), &sizes, sources);
    let server = serve(place.path(), &[])?;
    let old_server = match &old_programs {
        Some(programs) => Some(serve_with(programs.server(), place.path(), &[])?),
        None => None,
    };
    let mut scenes = Vec::new();
    for &size in &sizes {
        let own = place.path().join(format!("of-{size}"));
        std::fs::create_dir(&own)?;
        let mut scene = Scene::new(&own, &size.to_string(), size, streams)?;
        scene.server = endpoint(&server);
        scene.old =
            old_programs.as_ref().zip(old_server.as_ref()).map(|(programs, server)| old(programs, server));
        scenes.push(scene);
    }
    let mut candidates: Vec<Candidate<'_>> = Vec::new();
    // The old build's after all others, so that each scene's index is that of its size.
    let ours = scenes.iter().map(|scene| (scene, OURS));
    for (scene, name) in
        ours.chain(scenes.iter().filter(|_| old_programs.is_some()).map(|scene| (scene, OLD)))
    {
        let mut fetch = scene.command(name)?;
        let run = move || {
            let elapsed = scene.run(&mut fetch);
            // One output at a time: the largest needs the room.
            scene.output.clear()?;
            elapsed
        };
        candidates.push((format!("{name}, {}", human_size(scene.size)), Box::new(run)));
    }
    let series = alternate(rounds, candidates);

    println!();
    let mut table = Table::new(&[
        "size",
        "best s",
        "median s",
        "best GB/s",
        "median GB/s",
        "best s per GB, of the largest's",
        "best rate / old",
    ]);
    let (series, of_old) = series.split_at(sizes.len());
    let largest = series.last().and_then(Series::best).zip(sizes.last());
    for (at, (one, &size)) in series.iter().zip(&sizes).enumerate() {
        let (Some(best), Some(median)) = (one.best(), one.median()) else { continue };
        let rate = |seconds| Unit::GigabytesPerSecond.rate(size, seconds);
        let ratio = largest
            .map(|(seconds, &largest)| Unit::GigabytesPerSecond.rate(largest, seconds) / rate(best))
            .map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        let against_old = of_old.get(at).and_then(Series::best).map(|old| old / best);
        table.row(vec![
            human_size(size),
            format!("{best:.4}"),
            format!("{median:.4}"),
            format!("{:.2}", rate(best)),
            format!("{:.2}", rate(median)),
            ratio,
            against_old.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
        ]);
    }
    table.print();
    print_errors(series);
    print_errors(of_old);
    demand_ours(series)
}

/// What the files to fetch consist of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sources {
    Random,
    /// Nothing: they take no room, so that a larger output has it. What is read of them is in the cores' caches.
    Holes,
}

impl Sources {
    fn description(self) -> &'static str {
        match self {
            Self::Random => "the files have random bytes",
            Self::Holes => "the files are holes",
        }
    }
}

/// Makes a file for each size that leaves room for its output, named by it.
fn make_files(folder: &Path, sizes: &[u64], sources: Sources) -> Vec<u64> {
    let mut made = Vec::new();
    for &size in sizes {
        let path = folder.join(size.to_string());
        let needed = match sources {
            Sources::Random => size.saturating_mul(2),
            Sources::Holes => size,
        };
        // A fifth to spare: on tmpfs the room is the machine's memory.
        if free(folder).is_none_or(|free| needed > free / 5 * 4) {
            println!("skipped: {} (no room for it)", human_size(size));
            continue;
        }
        match sources {
            Sources::Random => write_random(&path, size),
            Sources::Holes => write_hole(&path, size),
        }
        made.push(size);
    }
    made
}
