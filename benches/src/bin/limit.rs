//! Ways to move one large file over loopback, nothing verified: which of them is the limit, and what others would gain.
//!
//! `cargo build --release && target/release/bench-limit [--old DIR] [FOLDER [SIZE [STREAMS [ROUNDS]]]]`, by default
//! `/dev/shm 2048 8 7`; a size without a unit is in MiB, and must be a multiple of one. Complete processes are timed; the product
//! runs among them, and it verifies.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::path::PathBuf;

use dt_benches::arguments::{Arguments, human_size};
use dt_benches::clients::{Fetch, OURS, Scene, UNVERIFIED, demand_ours};
use dt_benches::files::place;
use dt_benches::product::{serve, serve_with};
use dt_benches::rounds::alternate;
use dt_benches::servers::{endpoint, old};
use dt_benches::table::{Unit, print_rates};
use dt_benches::{Failure, link};
use dt_testkit::content::write_random;

/// The row that all others are compared with.
const LIMIT: &str = "sendfile, populate";

/// A row, and `netlimit`'s ways to send and to receive, whether it calls fallocate first, and KiB in a call.
const WAYS: [(&str, [&str; 4]); 13] = [
    (LIMIT, ["sendfile", "mmappop", "0", "1024"]),
    ("the same, 256 KiB a call", ["sendfile", "mmappop", "0", "256"]),
    ("the same, 4 MiB a call", ["sendfile", "mmappop", "0", "4096"]),
    ("sendfile, fallocate and populate", ["sendfile", "mmappop", "1", "1024"]),
    ("sendfile, mapping without populate", ["sendfile", "mmap", "0", "1024"]),
    ("sendfile, pwrite of what has arrived", ["sendfile", "pwrite", "0", "1024"]),
    ("sendfile, pwrite of complete 256 KiB", ["sendfile", "pwriteall", "0", "256"]),
    ("sendfile, pwrite of complete 512 KiB", ["sendfile", "pwriteall", "0", "512"]),
    ("sendfile, splice", ["sendfile", "splice", "0", "1024"]),
    ("read and write, populate", ["rw", "mmappop", "0", "1024"]),
    ("write from a mapping, populate", ["mmap", "mmappop", "0", "1024"]),
    ("sendfile, received and discarded by the program", ["sendfile", "buf", "0", "1024"]),
    ("sendfile, discarded by the kernel", ["sendfile", "discard", "0", "1024"]),
];

/// A row, and `uringlimit`'s way to receive, how many rings do it, and KiB in a request.
const RINGS: [(&str, [&str; 3]); 3] = [
    ("sendfile, io_uring receives and writes, 1 ring", ["write", "1", "512"]),
    ("sendfile, io_uring receives and writes, 2 rings", ["write", "2", "512"]),
    ("sendfile, io_uring into populated pages, 2 rings", ["mmappop", "2", "1024"]),
];

fn main() -> Result<(), Failure> {
    let mut arguments = Arguments::new("bench-limit [--old DIR] [FOLDER [SIZE [STREAMS [ROUNDS]]]]");
    let old_programs = arguments.old()?;
    let folder: PathBuf = arguments.next("FOLDER", "/dev/shm".into())?;
    let size = arguments.next_size("SIZE", "2048")?;
    let streams: u16 = arguments.next("STREAMS", 8)?;
    let rounds = arguments.next("ROUNDS", 7)?;
    if size == 0 || size % (1 << 20) != 0 {
        return Err("SIZE must be a multiple of 1 MiB".into());
    }

    let place = place(&folder)?;
    let file = place.path().join("in");
    write_random(&file, size);
    let server = serve(place.path(), &[])?;
    let mut scene = Scene::new(place.path(), "in", size, streams)?;
    scene.server = endpoint(&server);
    let old_server = match &old_programs {
        Some(programs) => Some(serve_with(programs.server(), place.path(), &[])?),
        None => None,
    };
    scene.old =
        old_programs.as_ref().zip(old_server.as_ref()).map(|(programs, server)| old(programs, server));
    let netlimit = link::compile("netlimit", place.path())?;
    let uringlimit = link::compile("uringlimit", place.path())?;

    println!(
        "{} in {}, {streams} streams, {rounds} rounds after one that is not counted\n",
        human_size(size),
        folder.display()
    );
    let mut candidates = scene.candidates(&[OURS, "dtclient-one-stream", UNVERIFIED]);
    let mut add = |name: &str, mut fetch: Fetch| {
        let scene = &scene;
        candidates.push((name.to_owned(), Box::new(move || scene.run(&mut fetch))));
    };
    for (name, way) in WAYS {
        add(name, scene.tool(&netlimit, &file, streams, &way));
    }
    for fewer in [1, 2] {
        let way = ["sendfile", "mmappop", "0", "1024"];
        add(&format!("{LIMIT}, {fewer} streams"), scene.tool(&netlimit, &file, fewer, &way));
    }
    for (name, way) in RINGS {
        add(name, scene.tool(&uringlimit, &file, streams, &way));
    }
    let series = alternate(rounds, candidates);
    println!();
    print_rates(&series, size, Unit::GigabytesPerSecond, LIMIT);
    demand_ours(&series)
}
