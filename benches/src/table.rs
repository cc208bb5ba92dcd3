//! Figures as Markdown, and beside what they should be.

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

/// Prints what transfers of `bytes` took, their rates, and how their best compares with the best of `limit`.
pub fn print_rates(series: &[Series], bytes: u64, unit: Unit, limit: &str) {
    let (best, median) = (format!("best {}", unit.name()), format!("median {}", unit.name()));
    let against = format!("best / {limit}");
    let mut table = Table::new(&["what", "best s", "median s", &best, &median, &against, "failed"]);
    let limit = crate::rounds::named(series, limit).and_then(Series::best);
    for one in series {
        let (Some(best), Some(median)) = (one.best(), one.median()) else {
            let nothing = || "-".to_owned();
            let mut cells = vec![one.name.clone()];
            cells.extend(std::iter::repeat_with(nothing).take(5));
            cells.push(one.n_failed.to_string());
            table.row(cells);
            continue;
        };
        table.row(vec![
            one.name.clone(),
            format!("{best:.3}"),
            format!("{median:.3}"),
            unit.text(unit.rate(bytes, best)),
            unit.text(unit.rate(bytes, median)),
            limit.map_or_else(|| "-".to_owned(), |limit| format!("{:.2}", limit / best)),
            one.n_failed.to_string(),
        ]);
    }
    table.print();
    print_complaints(series);
}

/// Prints what candidates that failed said.
pub fn print_complaints(series: &[Series]) {
    for one in series {
        if let Some(complaint) = &one.complaint {
            println!("\n{}: {complaint}", one.name);
        }
    }
}

/// Prints a figure beside the most that it may be.
pub fn print_at_most(what: &str, figure: Option<f64>, allowed: f64, unit: &str) {
    let verdict = |figure: f64| figure <= allowed;
    print_target(what, figure, &format!("at most {allowed}{unit}"), unit, allowed, verdict);
}

/// Prints a figure beside the least that it may be.
pub fn print_at_least(what: &str, figure: Option<f64>, wanted: f64, unit: &str) {
    let verdict = |figure: f64| figure >= wanted;
    print_target(what, figure, &format!("at least {wanted}{unit}"), unit, wanted, verdict);
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
