//! One stream at a hundredth of the others' rate: what it costs the transfer.
//!
//! `cargo build --release && target/release/bench-slow-stream [--clients NAMES] [--old DIR] [FOLDER [SIZE [STREAMS
//! [ROUNDS [MB_PER_SECOND [SLOW]]]]]]`, by default `/dev/shm 200MB 8 7 10 3`: every connection gets 10 MB/s, but number 3 a
//! hundredth of that. Forwarders in this program limit the rates, one for each server. `--old` names a folder with an
//! earlier build of both programs, which takes part; its streams go to a data port, which has a forwarder too.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use dt_benches::Failure;
use dt_benches::arguments::{Arguments, human_size};
use dt_benches::clients::{OLD, OURS, Old, Scene, demand_ours, skipped};
use dt_benches::files::place;
use dt_benches::nginx::Nginx;
use dt_benches::product::{serve, serve_with};
use dt_benches::rounds::{Candidate, Series, alternate, named};
use dt_benches::table::{Unit, print_at_most, print_rates};
use dt_testkit::content::write_random;
use dt_testkit::forwarder::Forwarder;

/// The most that it may cost, in seconds.
const ALLOWED: f64 = 1.0;

/// The clients that take part.
const CLIENTS: &str = "dtclient,dtclient-1,rclone,aria2c,axel,lftp";

/// The limit of a transfer; a peer with a static split takes a hundred times longer with the slow stream.
const LIMIT: Duration = Duration::from_secs(60);

fn main() -> Result<(), Failure> {
    let mut arguments = Arguments::new(
        "bench-slow-stream [--clients NAMES] [--old DIR] [FOLDER [SIZE [STREAMS [ROUNDS [MB_PER_SECOND [SLOW]]]]]]",
    );
    let clients = arguments.option("--clients")?.unwrap_or_else(|| CLIENTS.to_owned());
    let old = arguments.old()?;
    let folder: PathBuf = arguments.next("FOLDER", "/dev/shm".into())?;
    let size = arguments.next_size("SIZE", "200MB")?;
    let (streams, rounds): (u16, usize) = (arguments.next("STREAMS", 8)?, arguments.next("ROUNDS", 7)?);
    let rate: u64 = arguments.next("MB_PER_SECOND", 10)?;
    let slow: u64 = arguments.next("SLOW", 3)?;
    let rate_in_bytes = rate.saturating_mul(1_000_000);

    let place = place(&folder)?;
    write_random(&place.path().join("in"), size);
    // The transfers of protocol 1 get one port, so that a forwarder can listen before it; no other program here asks for one just now.
    let transfers = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let server = serve(place.path(), &["--transfer-ports", &format!("{0}-{0}", transfers.port())])?;
    let nginx = Nginx::start(place.path())?;
    let mut scene = Scene::new(place.path(), "in", size, streams)?;
    scene.limit = LIMIT;
    let mut forwarders = Vec::new();
    let mut forward = |target: SocketAddr| {
        let forwarder = Forwarder::with_the_same_port(target, Some(rate_in_bytes));
        let address = forwarder.addr.to_string();
        forwarders.push(forwarder);
        address
    };
    scene.server = forward(server.addr).into();
    forward(transfers);
    if let Some(nginx) = &nginx {
        scene.web = Some(forward(nginx.address.parse()?).into());
    }
    let mut old_server = None;
    if let Some(old) = old {
        let data = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let server = serve_with(old.server(), place.path(), &["--data-port", &data.port().to_string()])?;
        forward(data);
        scene.old = Some(Old { client: old.client().to_owned(), server: forward(server.addr).into() });
        old_server = Some(server);
    }

    println!(
        "{} in {}, {streams} streams of {rate} MB/s each, {rounds} rounds after one that is not counted\n",
        human_size(size),
        folder.display()
    );
    let (scene, forwarders) = (&scene, &forwarders);
    let mut candidates: Vec<Candidate<'_>> = Vec::new();
    let old_client = old_server.as_ref().map(|_| OLD);
    for name in clients.split(',').chain(old_client) {
        for (kind, slow) in [("", None), (", one slow", Some(slow))] {
            match scene.command(name) {
                Ok(mut fetch) => {
                    let run = move || {
                        for forwarder in forwarders {
                            forwarder.begin(slow);
                        }
                        scene.run(&mut fetch)
                    };
                    candidates.push((format!("{name}{kind}"), Box::new(run)));
                }
                Err(why) if slow.is_none() => skipped(name, &why),
                Err(_) => {}
            }
        }
    }
    let series = alternate(rounds, candidates);
    println!();
    print_rates(&series, size, Unit::MegabitsPerSecond, OURS);
    let best = |name: &str| named(&series, name).and_then(Series::best);
    let cost = best(&format!("{OURS}, one slow")).zip(best(OURS)).map(|(slow, equal)| slow - equal);
    print_at_most("what the slow stream costs dtclient, best runs,", cost, ALLOWED, " s");
    demand_ours(&series)
}
