//! Protocol 1 against `md5sum` of the same file, in turn, on tmpfs: what the transfer costs beside its digest.
//!
//! `cargo build --release && target/release/bench-protocol1 [FOLDER [MIB [ROUNDS]]]`, by default `/dev/shm 1024 7`.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use dt_benches::{Candidate, Failure, Server, alternate, print, program, random_file, time};

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().unwrap_or_else(|| "/dev/shm".to_owned()));
    let mib: u64 = arguments.next().map_or(Ok(1024), |text| text.parse())?;
    let rounds: usize = arguments.next().map_or(Ok(7), |text| text.parse())?;
    let folder = tempfile::tempdir_in(folder)?;
    let (file, output) = (folder.path().join("in"), folder.path().join("out"));
    random_file(&file, mib << 20)?;
    fs::write(folder.path().join("tiny"), "x")?;
    let server = Server::start(folder.path())?;

    println!(
        "{mib} MiB in {}, 8 streams, {rounds} rounds after one that is not counted",
        folder.path().display()
    );
    let fetch = |name: &str| fetch(&server, name, &output);
    let candidates: Vec<Candidate<'_>> = vec![
        ("md5sum", Box::new(|| time(Command::new("md5sum").arg(&file)))),
        ("dtclient, digest cached by the server", Box::new(|| fetch("in"))),
        (
            "dtclient, server hashes first",
            Box::new(|| {
                // Another modification time is another version to the server's cache; the bytes stay in memory.
                File::options().write(true).open(&file)?.set_modified(SystemTime::now())?;
                fetch("in")
            }),
        ),
    ];
    // The round that is not counted leaves the digest in the cache for the second candidate, and every cold run
    // leaves the next warm one its digest.
    print(&alternate(rounds, candidates)?);

    println!("\nA file of one byte, whole process, {} rounds", rounds * 5);
    let tiny: Vec<Candidate<'_>> = vec![("dtclient, 8 streams", Box::new(|| fetch("tiny")))];
    print(&alternate(rounds * 5, tiny)?);
    Ok(())
}

/// One transfer, from the start of the process to its end.
fn fetch(server: &Server, name: &str, output: &Path) -> Result<Duration, Failure> {
    // Replacing an output gives its pages back, which the comparison does not pay for.
    if output.exists() {
        fs::remove_file(output)?;
    }
    time(Command::new(program("dtclient")?).args(["--quiet", &server.address, "8", name]).arg(output))
}
