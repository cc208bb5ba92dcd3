//! One large file over loopback, uploaded and downloaded in turn: the same engine in both directions.
//!
//! `cargo build --release && target/release/bench-upload [FOLDER [SIZE [STREAMS [ROUNDS]]]]`, by default `/dev/shm 2048 8 7`; a size
//! without a unit is in MiB. Complete processes are timed; both directions verify.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use dt_benches::Failure;
use dt_benches::arguments::{Arguments, human_size};
use dt_benches::files::{place, warm};
use dt_benches::process::time;
use dt_benches::product::{Program, serve};
use dt_benches::rounds::{Candidate, Series, alternate, named};
use dt_benches::table::{Unit, print_at_least, print_errors, print_rates};
use dt_testkit::content::write_random;

const LIMIT: Duration = Duration::from_secs(600);
const DOWNLOAD: &str = "download";
/// From a server that has just started and so has no digest of the file, as the client of an upload has none.
const FIRST: &str = "download, the server's first";
const UPLOAD: &str = "upload";

/// The least rate of an upload, of the download's.
const WANTED: f64 = 0.95;

fn main() -> Result<(), Failure> {
    let mut arguments = Arguments::new("bench-upload [FOLDER [SIZE [STREAMS [ROUNDS]]]]");
    let folder: PathBuf = arguments.next("FOLDER", "/dev/shm".into())?;
    let size = arguments.next_size("SIZE", "2048")?;
    let streams: u16 = arguments.next("STREAMS", 8)?;
    let rounds = arguments.next("ROUNDS", 7)?;
    let place = place(&folder)?;
    let (file, output) = (place.path().join("in"), place.path().join("out"));
    write_random(&file, size);
    let server = serve(place.path(), &["--writable"])?;
    let client = Program::find("dtclient")?;
    println!(
        "{} in {}, {streams} streams, {rounds} rounds after one that is not counted\n",
        human_size(size),
        folder.display()
    );

    let clear = || match fs::remove_file(&output) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Failure::from(error)),
        _ => {
            warm(size);
            Ok(())
        }
    };
    let (addr, streams) = (server.addr.to_string(), streams.to_string());
    let candidates: Vec<Candidate<'_>> = vec![
        (
            DOWNLOAD.to_owned(),
            Box::new(|| {
                clear()?;
                time(client.command().args(["-q", &addr, &streams, "in"]).arg(&output), LIMIT)
            }),
        ),
        (
            FIRST.to_owned(),
            Box::new(|| {
                clear()?;
                let server = serve(place.path(), &[])?;
                let addr = server.addr.to_string();
                time(client.command().args(["-q", &addr, &streams, "in"]).arg(&output), LIMIT)
            }),
        ),
        (
            UPLOAD.to_owned(),
            Box::new(|| {
                clear()?;
                time(
                    client
                        .command()
                        .args(["put", "-q", "-s", &streams])
                        .arg(&file)
                        .arg(format!("{addr}/out")),
                    LIMIT,
                )
            }),
        ),
    ];
    let series = alternate(rounds, candidates);
    println!();
    print_rates(&series, size, Unit::GigabytesPerSecond, DOWNLOAD);
    print_errors(&series);
    let median = |name: &str| named(&series, name).and_then(Series::median);
    let over = |name: &str| Some(median(name)? / median(UPLOAD)?);
    print_at_least("median rate of the upload over the download's", over(DOWNLOAD), WANTED, "");
    print_at_least("median rate of the upload over the first download's", over(FIRST), WANTED, "");
    Ok(())
}
