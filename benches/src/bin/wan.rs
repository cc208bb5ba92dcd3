//! Transfers over an emulated wide-area link: how fast, and how long the digest takes behind the last byte.
//!
//! `cargo build --release && target/release/bench-wan MIB STREAMS ROUNDS [OPTIONS OF WANLAB ...]`, for instance
//! `bench-wan 1024 8 3 --rtt 1 --rate 1000`. Needs root, `/dev/net/tun`, iproute2 and a C compiler; the link itself is
//! `benches/tools/wanlab.c`.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::path::Path;
use std::process::{Command, Stdio};

use dt_benches::{Failure, program, random_file, time};

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |name: &str| -> Result<u64, Failure> {
        let text =
            arguments.next().ok_or_else(|| format!("{name} is missing: MIB STREAMS ROUNDS [OPTIONS]"))?;
        Ok(text.parse()?)
    };
    let (mib, streams, rounds) = (number("MIB")?, number("STREAMS")?, number("ROUNDS")?);
    let link: Vec<String> = arguments.collect();

    let folder = tempfile::tempdir_in("/dev/shm")?;
    let wanlab = folder.path().join("wanlab");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/wanlab.c");
    time(Command::new("cc").arg("-O2").arg("-o").arg(&wanlab).arg(source))?;
    random_file(&folder.path().join("in"), mib << 20)?;

    let place = folder.path().display();
    let server = format!("{} --quiet --root {place} 9000 > /dev/null", program("dtserver")?.display());
    // The first transfer leaves the file's digest in the server's cache; over one stream its own digest keeps up.
    let client = program("dtclient")?.display().to_string();
    let warm = format!("{client} --quiet 10.77.0.1:9000 1 in {place}/out");
    // Replacing an output frees its pages at the end, which is not what is timed here.
    let timed = format!("rm {place}/out; {client} --verbose 10.77.0.1:9000 {streams} in {place}/out");
    let rounds = usize::try_from(rounds)?;
    let client = format!("{warm}; {}", vec![timed; rounds].join("; "));
    println!("{mib} MiB, {streams} streams, {rounds} rounds, link {}", link.join(" "));
    let output = Command::new(&wanlab)
        .args(&link)
        .args(["--a", &server, "--b", &client])
        .stdin(Stdio::null())
        .output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    for line in told
        .lines()
        .filter(|line| line.contains("verified") && line.contains(" in ") || line.contains("last byte"))
    {
        println!("{line}");
    }
    if output.status.success() { Ok(()) } else { Err(format!("the last transfer failed: {told}").into()) }
}
