//! Draws the chart of the README from recorded results.
//!
//! `bench-chart [RESULTS [PREFIX]]` reads what `bench-loopback --results` wrote, by default `benches/results/loopback.jsonl`, and
//! writes PREFIX-light.svg and PREFIX-dark.svg, by default in `docs`.

#![expect(clippy::print_stdout, reason = "it prints what it has written")]

use std::fs;
use std::path::{Path, PathBuf};

use dt_benches::Failure;
use dt_benches::arguments::Arguments;
use dt_benches::chart::{Theme, draw};
use dt_benches::results;

fn main() -> Result<(), Failure> {
    let mut arguments = Arguments::new("bench-chart [RESULTS [PREFIX]]");
    let benches = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path: PathBuf = arguments.next("RESULTS", benches.join("results/loopback.jsonl"))?;
    let prefix: PathBuf = arguments.next("PREFIX", benches.with_file_name("docs").join("loopback"))?;
    let (run, candidates) = results::read(&path)?;
    for theme in Theme::ALL {
        let path = format!("{}-{}.svg", prefix.display(), theme.name());
        fs::write(&path, draw(&run, &candidates, theme)?)?;
        println!("{path}");
    }
    Ok(())
}
