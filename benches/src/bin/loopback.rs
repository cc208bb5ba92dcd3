//! One large file over loopback: the product against what the machine can move at best, and against its peers.
//!
//! `cargo build --release && target/release/bench-loopback [--clients NAMES] [FOLDER [SIZE [STREAMS [ROUNDS]]]]`, by default
//! `/dev/shm 2048 8 7`; a size without a unit is in MiB. Whole processes are timed; only the product verifies.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::path::PathBuf;

use dt_benches::arguments::{Arguments, spoken};
use dt_benches::clients::{OURS, Scene, best_peer, demand_ours, missing};
use dt_benches::files::place;
use dt_benches::nginx::Nginx;
use dt_benches::product::serve;
use dt_benches::rounds::{Series, alternate, named};
use dt_benches::table::{Unit, print_at_least, print_rates};
use dt_benches::{Failure, link};
use dt_testkit::content::write_random;

/// The share of the limit that a verified transfer has to reach.
const SHARE: f64 = 0.75;

/// Who takes part, besides the limit.
const CLIENTS: &str = "dtclient,dtclient-1,unverified,rclone,aria2c,axel,lftp,curl,wget";

/// How many times the rate of the fastest peer, which verifies nothing, it has to reach.
const LEAD: f64 = 1.25;

fn main() -> Result<(), Failure> {
    let mut arguments = Arguments::new("bench-loopback [--clients NAMES] [FOLDER [SIZE [STREAMS [ROUNDS]]]]");
    let clients = arguments.option("--clients")?.unwrap_or_else(|| CLIENTS.to_owned());
    let folder: PathBuf = arguments.next("FOLDER", "/dev/shm".into())?;
    let size = arguments.next_size("SIZE", "2048")?;
    let streams = arguments.next("STREAMS", 8)?;
    let rounds = arguments.next("ROUNDS", 7)?;

    let place = place(&folder)?;
    let file = place.path().join("in");
    write_random(&file, size);
    let (server, nginx) = (serve(place.path(), &[])?, Nginx::start(place.path())?);
    let mut scene = Scene::new(place.path(), "in", size, streams)?;
    scene.server = server.addr.to_string();
    scene.web = nginx.as_ref().map(|nginx| nginx.address.clone());

    let (size_told, folder) = (spoken(size), folder.display());
    println!("{size_told} in {folder}, {streams} streams, {rounds} rounds after one that is not counted\n");
    let mut candidates = scene.candidates(&clients.split(',').collect::<Vec<_>>());
    let limits = ["netlimit, populate", "netlimit, fallocate and populate"];
    match link::compile("netlimit", place.path()) {
        Ok(netlimit) => {
            for (name, fallocate) in limits.into_iter().zip(["0", "1"]) {
                let mut command = scene.tool(&netlimit, &file, streams, &["sendfile", "mmappop", fallocate]);
                let scene = &scene;
                candidates.push((name.to_owned(), Box::new(move || scene.run(&mut command))));
            }
        }
        Err(why) => missing("netlimit", &why),
    }
    let series = alternate(rounds, candidates);

    let best_of = |name: &str| named(&series, name).and_then(Series::best);
    let [plain, fallocated] = limits;
    let limit = match (best_of(plain), best_of(fallocated)) {
        (Some(without), Some(with)) if with < without => fallocated,
        _ => plain,
    };
    println!();
    print_rates(&series, size, Unit::GigabytesPerSecond, limit);
    let ours = best_of(OURS);
    let against = |other: Option<f64>| Some(other? / ours?);
    print_at_least("best rate of dtclient over that of the limit", against(best_of(limit)), SHARE, "");
    if let Some(peer) = best_peer(&series) {
        let what = format!("best rate of dtclient over that of the best peer, {},", peer.name);
        print_at_least(&what, against(peer.best()), LEAD, "");
    }
    demand_ours(&series)
}
