//! Figures as Markdown, and next to their targets.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use crate::float;
use crate::rounds::Series;

/// A table under construction.
#[derive(Clone, Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub fn new(columns: &[&str]) -> Self {
        Self { rows: vec![columns.iter().map(|&name| name.to_owned()).collect()] }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Prints it.
    pub fn print(&self) {
        for (at, row) in self.rows.iter().enumerate() {
            println!("| {} |", row.join(" | "));
            if at == 0 {
                println!("|{}", "---|".repeat(row.len()));
            }
        }
    }
}

/// What a rate is counted in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Thousand million bytes a second.
    GigabytesPerSecond,
    /// Million bits a second.
    MegabitsPerSecond,
}

impl Unit {
    /// The rate of so many bytes in so many seconds.
    pub fn rate(self, bytes: u64, seconds: f64) -> f64 {
        match self {
            Self::GigabytesPerSecond => float(bytes) / seconds / 1e9,
            Self::MegabitsPerSecond => float(bytes) * 8.0 / seconds / 1e6,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::GigabytesPerSecond => "GB/s",
            Self::MegabitsPerSecond => "Mbit/s",
        }
    }

    fn text(self, rate: f64) -> String {
        match self {
            Self::GigabytesPerSecond => format!("{rate:.2}"),
            Self::MegabitsPerSecond => format!("{rate:.0}"),
        }
    }
}

/// Prints what transfers of `bytes` took, their rates, and how their best compares with the best of `limit`; also the
/// processor time of both sides, median of the runs, where that of the server is known.
pub fn print_rates(series: &[Series], bytes: u64, unit: Unit, limit: &str) {
    let (best, median) = (format!("best {}", unit.name()), format!("median {}", unit.name()));
    let against = format!("best / {limit}");
    let has_cpu = series.iter().any(|one| one.server_cpu().is_some());
    let cpu = if has_cpu { &["client CPU s/GiB", "server CPU s/GiB"][..] } else { &[] };
    let columns = [&["what", "best s", "median s", &best, &median, &against], cpu, &["failed"]].concat();
    let mut table = Table::new(&columns);
    let limit = crate::rounds::named(series, limit).and_then(Series::best);
    let or_nothing = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    for one in series {
        let (best, median) = (one.best(), one.median());
        let seconds = |time: Option<f64>| or_nothing(time.map(|time| format!("{time:.3}")));
        let rate = |time: Option<f64>| or_nothing(time.map(|time| unit.text(unit.rate(bytes, time))));
        let ratio = limit.zip(best).map(|(limit, best)| format!("{:.2}", limit / best));
        let mut cells = vec![one.name.clone(), seconds(best), seconds(median), rate(best), rate(median)];
        cells.push(or_nothing(ratio));
        if has_cpu {
            let per_gib = |time: f64| format!("{:.2}", time * float(1 << 30) / float(bytes));
            let (client, server) = (one.client_cpu().map(per_gib), one.server_cpu().map(per_gib));
            // The tools in C are both sides in one process.
            let both = if server.is_none() { " (both)" } else { "" };
            cells.extend([or_nothing(client.map(|client| client + both)), or_nothing(server)]);
        }
        cells.push(one.n_failed.to_string());
        table.row(cells);
    }
    table.print();
    print_errors(series);
}

/// Prints the errors of candidates that failed.
pub fn print_errors(series: &[Series]) {
    for one in series {
        if let Some(last_error) = &one.last_error {
            println!("\n{}: {last_error}", one.name);
        }
    }
}

/// Prints a figure and its maximum.
pub fn print_at_most(what: &str, figure: Option<f64>, allowed: f64, unit: &str) {
    let verdict = |figure: f64| figure <= allowed;
    print_target(what, figure, &format!("at most {allowed}{unit}"), unit, allowed, verdict);
}

/// Prints a figure and its minimum.
pub fn print_at_least(what: &str, figure: Option<f64>, wanted: f64, unit: &str) {
    let verdict = |figure: f64| figure >= wanted;
    print_target(what, figure, &format!("at least {wanted}{unit}"), unit, wanted, verdict);
}

/// Prints how the product compares with its earlier build, if that was measured: by medians, at least `wanted` of its rate.
pub fn print_against_old(series: &[Series], wanted: f64) {
    use crate::clients::{OLD, OURS};
    use crate::rounds::named;
    if let Some(old) = named(series, OLD) {
        let ratio =
            old.median().zip(named(series, OURS).and_then(Series::median)).map(|(old, ours)| old / ours);
        print_at_least("median rate of dtclient over that of the old build", ratio, wanted, "");
    }
}

fn print_target(
    what: &str,
    figure: Option<f64>,
    target: &str,
    unit: &str,
    goal: f64,
    met: impl Fn(f64) -> bool,
) {
    let Some(figure) = figure else {
        println!("\nTarget: {what} {target}: not measured");
        return;
    };
    let verdict = if met(figure) { "met" } else { "MISSED" };
    println!("\nTarget: {what} {target}: {figure:.3}{unit}, {:.2} of the target, {verdict}", figure / goal);
}
