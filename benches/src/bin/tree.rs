//! Many small files over loopback: a directory downloaded, and again with nothing changed.
//!
//! `cargo build --release && target/release/bench-tree [FOLDER [FILES [SIZE [STREAMS [ROUNDS]]]]]`, by default `/dev/shm 100000 4KiB 8 5`. A
//! thousand files are in each directory. Complete processes are timed; only the product verifies the content. Files that arrive are counted.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use dt_benches::Failure;
use dt_benches::arguments::Arguments;
use dt_benches::clients::skipped;
use dt_benches::files::place;
use dt_benches::process::{Guard, listening, on_path, time};
use dt_benches::product::{Program, serve};
use dt_benches::rounds::{Candidate, Sample, Series, alternate, named};
use dt_benches::table::{Table, print_at_least, print_errors};
use dt_testkit::content::pattern;

/// How many files a directory has.
const PER_DIRECTORY: usize = 1000;

/// What no run may take.
const LIMIT: Duration = Duration::from_secs(600);

const OURS: &str = "dtclient";
const TAR: &str = "tar through a socket";
const RSYNC: &str = "rsync, from its daemon";

/// The targets: times the rate of the fastest peer that is neither tar nor cp, and the share of tar's.
const LEAD: f64 = 2.0;
const OF_TAR: f64 = 0.8;

fn main() -> Result<(), Failure> {
    let mut arguments = Arguments::new("bench-tree [FOLDER [FILES [SIZE [STREAMS [ROUNDS]]]]]");
    let folder: PathBuf = arguments.next("FOLDER", "/dev/shm".into())?;
    let n_files: usize = arguments.next("FILES", 100_000)?;
    let size = usize::try_from(arguments.next_size("SIZE", "4KiB")?)?;
    let streams: u16 = arguments.next("STREAMS", 8)?;
    let rounds = arguments.next("ROUNDS", 5)?;
    let place = place(&folder)?;
    let (source, output) = (place.path().join("in"), place.path().join("out"));
    plant(&source, n_files, size)?;
    let server = serve(place.path(), &[])?;
    let rsyncd = Rsyncd::start(place.path())?;
    println!(
        "{n_files} files of {size} bytes in {}, {streams} streams, {rounds} rounds after one that is not counted\n",
        folder.display()
    );

    let client = Program::find("dtclient")?;
    let get = || {
        let mut get = client.command();
        get.args(["get", "-q", "-s", &streams.to_string()])
            .arg(format!("{}/in/", server.addr))
            .arg("-o")
            .arg(&output);
        get
    };
    let rsync = |rsyncd: &Rsyncd| {
        let mut rsync = Command::new("rsync");
        rsync.args(["-a", &format!("rsync://127.0.0.1:{}/in/", rsyncd.port)]).arg(&output);
        rsync
    };
    let fresh = |mut command: Command| -> Result<Sample, Failure> {
        clear(&output)?;
        let sample = time(&mut command, LIMIT)?;
        demand(&output, n_files)?;
        Ok(sample)
    };
    let mut candidates: Vec<Candidate<'_>> = vec![(OURS.to_owned(), Box::new(|| fresh(get())))];
    match &rsyncd {
        Some(rsyncd) => candidates.push((RSYNC.to_owned(), Box::new(move || fresh(rsync(rsyncd))))),
        None => skipped(RSYNC, &"apt-get install rsync".into()),
    }
    candidates.push((
        TAR.to_owned(),
        Box::new(|| {
            clear(&output)?;
            let sample = tar(&source, &output)?;
            demand(&output, n_files)?;
            Ok(sample)
        }),
    ));
    candidates.push((
        "cp -r".to_owned(),
        Box::new(|| {
            let mut cp = Command::new("cp");
            cp.arg("-r").arg(source.join(".")).arg(&output);
            fresh(cp)
        }),
    ));
    let series = alternate(rounds, candidates);
    println!();
    let mut table = Table::new(&["what", "best s", "median s", "files/s", "failed"]);
    for one in &series {
        let seconds = |time: Option<f64>| time.map_or_else(|| "-".to_owned(), |s| format!("{s:.3}"));
        let rate = one.median().map_or_else(|| "-".to_owned(), |s| format!("{:.0}", count(n_files) / s));
        table.row(vec![
            one.name.clone(),
            seconds(one.best()),
            seconds(one.median()),
            rate,
            one.n_failed.to_string(),
        ]);
    }
    table.print();
    print_errors(&series);
    let median = |name: &str| named(&series, name).and_then(Series::median);
    let over = |name: &str| Some(median(name)? / median(OURS)?);
    print_at_least("median rate of dtclient over rsync's", over(RSYNC), LEAD, "");
    print_at_least("median rate of dtclient over tar's", over(TAR), OF_TAR, "");

    // Nothing has changed: what is there was fetched with all times.
    fresh(get())?;
    let mut again: Vec<Candidate<'_>> = vec![(OURS.to_owned(), Box::new(|| time(&mut get(), LIMIT)))];
    if let Some(rsyncd) = &rsyncd {
        again.push((RSYNC.to_owned(), Box::new(move || time(&mut rsync(rsyncd), LIMIT))));
    }
    let again = alternate(rounds, again);
    let median = |name: &str| named(&again, name).and_then(Series::median);
    println!(
        "\nNothing changed, medians: dtclient {:.3} s, rsync {:.3} s",
        median(OURS).unwrap_or(0.0),
        median(RSYNC).unwrap_or(0.0)
    );
    let ratio = median(RSYNC).and_then(|rsync| Some(rsync / median(OURS)?));
    print_at_least("rate with nothing changed over rsync's", ratio, 1.0, "");
    print_errors(&again);
    Ok(())
}

fn count(n: usize) -> f64 {
    u32::try_from(n).map_or(f64::INFINITY, f64::from)
}

fn plant(source: &Path, n_files: usize, size: usize) -> Result<(), Failure> {
    for n in 0..n_files {
        let folder = source.join(format!("d{}", n / PER_DIRECTORY));
        if n % PER_DIRECTORY == 0 {
            fs::create_dir_all(&folder)?;
        }
        fs::write(folder.join(format!("f{n}")), pattern(u64::try_from(n)?, size))?;
    }
    Ok(())
}

fn clear(output: &Path) -> Result<(), Failure> {
    if output.exists() {
        fs::remove_dir_all(output)?;
    }
    Ok(fs::create_dir(output)?)
}

/// Fails unless so many files are there.
fn demand(output: &Path, n_files: usize) -> Result<(), Failure> {
    let mut n = 0;
    for folder in fs::read_dir(output)? {
        n += fs::read_dir(folder?.path())?.count();
    }
    if n == n_files { Ok(()) } else { Err(format!("{n} of {n_files} files arrived").into()) }
}

/// Packs on one side of a connection, and unpacks on the other.
fn tar(source: &Path, output: &Path) -> Result<Sample, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let begun = Instant::now();
    let sending = thread::spawn({
        let source = source.to_owned();
        move || {
            let socket = OwnedFd::from(listener.accept()?.0);
            Command::new("tar")
                .arg("-C")
                .arg(source)
                .args(["-cf", "-", "."])
                .stdout(Stdio::from(socket))
                .status()
        }
    });
    let socket = OwnedFd::from(TcpStream::connect(address)?);
    let unpacked =
        Command::new("tar").arg("-C").arg(output).args(["-xf", "-"]).stdin(Stdio::from(socket)).status()?;
    let packed = sending.join().map_err(|_| "tar's thread has panicked")??;
    if packed.success() && unpacked.success() {
        Ok(begun.elapsed().into())
    } else {
        Err("tar has failed".into())
    }
}

/// An rsync daemon that serves a folder.
struct Rsyncd {
    port: u16,
    _process: Guard,
}

impl Rsyncd {
    /// Starts one, if rsync is installed.
    fn start(folder: &Path) -> Result<Option<Self>, Failure> {
        let Some(rsync) = on_path("rsync") else { return Ok(None) };
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let config = folder.join("rsyncd.conf");
        let text = format!("use chroot = no\n[in]\npath = {}\n", folder.join("in").display());
        fs::write(&config, text)?;
        let mut daemon = Command::new(rsync);
        daemon.args(["--daemon", "--no-detach", "--address=127.0.0.1", &format!("--port={port}")]);
        daemon.arg(format!("--config={}", config.display())).stdin(Stdio::null());
        let process = Guard::new(daemon.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
        listening("rsync", || TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        Ok(Some(Self { port, _process: process }))
    }
}
