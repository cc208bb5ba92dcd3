//! Memory: what the client takes besides the mapped output, and the server for each stream that waits.
//!
//! `cargo build --release && target/release/bench-memory [FOLDER [SIZE [STREAMS]]]`, by default `/dev/shm 64GiB 1000`.
//!
//! The client downloads a file that is one hole, over 8 and over 255 streams. The output is not a hole: where it has no
//! room, the file is smaller, which is printed. The client's status is read every 10 ms; "own" is the largest `RssAnon`:
//! everything resident but the pages of mapped files, which are the output. `VmHWM` less the largest `RssFile` and
//! `RssShmem` would be the same if all were largest at the same moment. The server's is `RssAnon` after a transfer,
//! and again when so many streams are open on which nothing is requested.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::io::ErrorKind;
use std::net::TcpStream;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use dt_benches::arguments::{Arguments, human_size};
use dt_benches::clients::{OURS, Scene, skipped};
use dt_benches::files::place;
use dt_benches::memory::{Memory, sample};
use dt_benches::process::raise_open_files;
use dt_benches::product::{finish, serve, start};
use dt_benches::servers::endpoint;
use dt_benches::table::Table;
use dt_benches::{Failure, float};
use dt_testkit::content::write_hole;
use dt_testkit::programs::Server;
use dt_testkit::session::Session;
use dt_testkit::workspace::free;

/// What the output leaves free: on tmpfs the room is the machine's memory.
const LEFT_FREE: u64 = 8 << 30;

/// The streams of one session at most.
const STREAMS_OF_A_SESSION: usize = 250;

fn main() -> Result<(), Failure> {
    let mut arguments = Arguments::new("bench-memory [FOLDER [SIZE [STREAMS]]]");
    let folder: PathBuf = arguments.next("FOLDER", "/dev/shm".into())?;
    let wanted = arguments.next_size("SIZE", "64GiB")?;
    let streams: usize = arguments.next("STREAMS", 1000)?;
    raise_open_files()?;

    let place = place(&folder)?;
    let gib = free(&folder).unwrap_or(0).saturating_sub(LEFT_FREE) >> 30;
    let size = if wanted >> 30 >= gib { gib << 30 } else { wanted };
    if size < wanted {
        println!(
            "{} do not fit into {}: the file has {}",
            human_size(wanted),
            folder.display(),
            human_size(size)
        );
    }
    write_hole(&place.path().join("in"), size);
    let server = serve(place.path(), &[])?;

    println!("One client, {} in {}\n", human_size(size), folder.display());
    let mut table = Table::new(&["streams", "own, MiB", "mapped, MiB", "VmHWM, MiB", "s"]);
    for n in [8, 255] {
        let (peak, elapsed) = client(&server, place.path(), size, n)?;
        let mut cells = vec![n.to_string()];
        cells.extend([peak.anonymous, peak.mapped, peak.peak].map(mib));
        cells.push(format!("{:.1}", elapsed.as_secs_f64()));
        table.row(cells);
    }
    table.print();

    println!("\nThe server, with streams that were greeted and wait\n");
    match idle_streams(&server, streams) {
        Ok((before, after, open)) => {
            let more = after.anonymous.saturating_sub(before.anonymous);
            let mut table = Table::new(&["open streams", "before, MiB", "with them, MiB", "each, KiB"]);
            let each = float(more) / float(u64::try_from(open.max(1))?);
            let sums = [before.anonymous, after.anonymous].map(mib);
            table.row(
                [vec![format!("{open} of {streams}")], sums.to_vec(), vec![format!("{each:.1}")]].concat(),
            );
            table.print();
        }
        Err(why) => skipped("idle streams", &why),
    }
    Ok(())
}

fn mib(kib: u64) -> String {
    format!("{:.1}", float(kib) / 1024.0)
}

/// The peaks of one transfer's client.
fn client(
    server: &Server,
    folder: &std::path::Path,
    size: u64,
    streams: u16,
) -> Result<(Memory, Duration), Failure> {
    let mut scene = Scene::new(folder, "in", size, streams)?;
    scene.server = endpoint(server);
    let mut client = start(scene.command(OURS)?.command);
    let peak = sample(client.id(), || !client.has_ended());
    let took = finish(client)?.took;
    scene.output.demand(size)?;
    scene.output.clear()?;
    Ok((peak, took))
}

/// The server's memory before and with the streams, and how many of them it left open.
fn idle_streams(server: &Server, wanted: usize) -> Result<(Memory, Memory, usize), Failure> {
    let status = || Memory::of(server.process().id()).ok_or("the server is gone");
    let before = status()?;
    let mut streams: Vec<TcpStream> = Vec::new();
    while streams.len() < wanted {
        let n = u8::try_from(STREAMS_OF_A_SESSION.min(wanted - streams.len()))?;
        let session = Session::request(server.addr, "in", n);
        streams.extend((0..n).map(|stream| session.open(stream).socket));
    }
    // A refusal arrives at once.
    thread::sleep(Duration::from_secs(1));
    let after = status()?;
    let open = streams.iter().filter(|stream| is_idle(stream)).count();
    Ok((before, after, open))
}

/// Whether the other side has neither closed the stream nor sent anything.
fn is_idle(stream: &TcpStream) -> bool {
    let peeked = stream.set_nonblocking(true).and_then(|()| stream.peek(&mut [0]));
    matches!(peeked, Err(error) if error.kind() == ErrorKind::WouldBlock)
}
