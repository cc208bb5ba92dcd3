//! One run as a bar chart in SVG, for light and for dark pages.

use std::cmp::Ordering;

use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::arguments::human_size;
use crate::results::{Candidate, Role, Run};
use crate::table::Unit;
use crate::{Failure, float};

/// The width in pixels, at which all text is readable.
const WIDTH: u32 = 800;

/// Heights in pixels: title and subtitle, one bar, and the axis.
const HEAD: u32 = 68;
const ROW: u32 = 32;
const AXIS: u32 = 52;

/// Two lines of caption.
const CAPTION: u32 = 58;

/// Room for the names of the candidates.
const NAMES: u32 = 248;

/// Text sizes in units of the plotting crate: an SVG pixel has 1.24 of them.
const TITLE: i32 = 24;
const TEXT: i32 = 18;

/// The colours of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Theme {
    /// Dark text for a light background.
    Light,
    /// Light text for a dark background.
    Dark,
}

impl Theme {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Light, Self::Dark];

    /// As a part of a file's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }

    fn text(self) -> RGBColor {
        match self {
            Self::Light => RGBColor(0x1f, 0x23, 0x28),
            Self::Dark => RGBColor(0xf0, 0xf6, 0xfc),
        }
    }

    fn muted(self) -> RGBColor {
        match self {
            Self::Light => RGBColor(0x59, 0x63, 0x6e),
            Self::Dark => RGBColor(0x9d, 0xa5, 0xae),
        }
    }

    fn grid(self) -> RGBColor {
        match self {
            Self::Light => RGBColor(0xd1, 0xd9, 0xe0),
            Self::Dark => RGBColor(0x3d, 0x44, 0x4d),
        }
    }

    fn bar(self, role: Role) -> RGBColor {
        match (role, self) {
            (Role::Verified, Self::Light) => RGBColor(0x09, 0x69, 0xda),
            (Role::Verified, Self::Dark) => RGBColor(0x44, 0x93, 0xf8),
            (Role::Unverified, Self::Light) => RGBColor(0xa5, 0xcb, 0xf5),
            (Role::Unverified, Self::Dark) => RGBColor(0x1b, 0x48, 0x80),
            (Role::Limit, Self::Light) => RGBColor(0xe6, 0xc8, 0x8c),
            (Role::Limit, Self::Dark) => RGBColor(0x7a, 0x5b, 0x1e),
            (_, Self::Light) => RGBColor(0xaf, 0xb8, 0xc1),
            (_, Self::Dark) => RGBColor(0x65, 0x6c, 0x76),
        }
    }
}

fn style(size: i32, color: RGBColor, anchor: HPos) -> TextStyle<'static> {
    let mut style = TextStyle::from(("sans-serif", size));
    style.color = color.to_backend_color();
    style.pos = Pos::new(anchor, VPos::Center);
    style
}

/// One bar: a name, what it is, and its rates in GB/s.
#[derive(Clone, PartialEq, Debug)]
struct Bar {
    name: String,
    role: Role,
    best: f64,
    median: f64,
}

/// Draws the rates of a run, the fastest on top.
///
/// # Errors
/// If there is nothing to draw, or the plotting crate fails.
pub fn draw(run: &Run, candidates: &[Candidate], theme: Theme) -> Result<String, Failure> {
    let bars = bars(run, candidates);
    let largest = bars.first().map(|bar| bar.best).ok_or("the results have no candidate to draw")?;
    let n_rows = u32::try_from(bars.len())?;
    let mut svg = String::new();
    {
        let height = HEAD + ROW * n_rows + AXIS + CAPTION;
        let root = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        let (head, rest) = root.split_vertically(HEAD);
        let (body, caption) = rest.split_vertically(ROW * n_rows + AXIS);
        let line = |area: &Area<'_>, y: i32, size: i32, color: RGBColor, text: &str| {
            area.draw(&Text::new(text.to_owned(), (10, y), style(size, color, HPos::Left)))
        };
        let medium = if run.medium == "memory" { "memory" } else { "a disk" };
        let title = format!(
            "{} over loopback, {} streams, from {medium} to {medium}",
            human_size(run.size),
            run.streams
        );
        line(&head, 22, TITLE, theme.text(), &title)?;
        let subtitle = format!("Bar: best of {} runs of the complete process; mark: median", run.rounds);
        line(&head, 48, TEXT, theme.muted(), &subtitle)?;
        draw_bars(&body, &bars, largest * 1.12, theme)?;
        line(&caption, 20, TEXT, theme.muted(), "Only dtclient verifies; peers over HTTP fetch from nginx.")?;
        line(&caption, 42, TEXT, theme.muted(), &format!("{}, {}", run.date, run.machine))?;
        root.present()?;
    }
    Ok(svg)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Axes = Cartesian2d<RangedCoordf64, RangedCoordf64>;

fn draw_bars(area: &Area<'_>, bars: &[Bar], largest: f64, theme: Theme) -> Result<(), Failure> {
    let n_rows = float(u64::try_from(bars.len())?);
    let mut chart: ChartContext<'_, _, Axes> = ChartBuilder::on(area)
        .margin_right(24)
        .x_label_area_size(AXIS)
        .y_label_area_size(NAMES)
        .build_cartesian_2d(0.0..largest, 0.0..n_rows)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .x_labels(8)
        .x_label_formatter(&|rate| format!("{rate:.1}"))
        .x_desc("GB/s (thousand million bytes a second)")
        .axis_style(theme.muted())
        .bold_line_style(theme.grid())
        .light_line_style(TRANSPARENT)
        .label_style(style(TEXT, theme.muted(), HPos::Left))
        .axis_desc_style(style(TEXT, theme.muted(), HPos::Left))
        .draw()?;
    for (at, bar) in bars.iter().enumerate() {
        let middle = n_rows - float(u64::try_from(at)?) - 0.5;
        let (bottom, top) = (middle - 0.36, middle + 0.36);
        let fill = theme.bar(bar.role).filled();
        chart.draw_series([Rectangle::new([(0.0, bottom), (bar.best, top)], fill)])?;
        let mark = [(bar.median, bottom), (bar.median, top)];
        chart.draw_series([PathElement::new(mark, theme.text().stroke_width(2))])?;
        let (name, value) = (bar.name.clone(), format!("{:.2}", bar.best));
        let text_style = |anchor| style(TEXT, theme.text(), anchor);
        let name = Text::new(name, (-8, 0), text_style(HPos::Right));
        chart.draw_series([EmptyElement::at((0.0, middle)) + name])?;
        let value = Text::new(value, (6, 0), text_style(HPos::Left));
        chart.draw_series([EmptyElement::at((bar.best, middle)) + value])?;
    }
    Ok(())
}

/// The bars, the fastest first: of several limits, and of several stream counts of one peer, the fastest counts.
fn bars(run: &Run, candidates: &[Candidate]) -> Vec<Bar> {
    let rate = |seconds| Unit::GigabytesPerSecond.rate(run.size, seconds);
    let mut bars: Vec<Bar> = candidates
        .iter()
        .filter(|one| !matches!(one.role, Role::Legacy | Role::Old))
        .map(|one| Bar { name: name(one), role: one.role, best: rate(one.best), median: rate(one.median) })
        .collect();
    bars.sort_by(|a, b| b.best.partial_cmp(&a.best).unwrap_or(Ordering::Equal));
    let mut seen: Vec<(Role, String)> = Vec::new();
    bars.retain(|bar| {
        let kind = (bar.role, bar.name.split(" -p ").next().unwrap_or_default().to_owned());
        let is_new = !seen.contains(&kind);
        seen.push(kind);
        is_new
    });
    bars
}

/// How a bar is named.
fn name(candidate: &Candidate) -> String {
    match candidate.role {
        Role::Verified => "dtclient, every block verified".to_owned(),
        Role::Unverified => "dtclient, nothing verified".to_owned(),
        Role::Limit => "limit: sendfile to mapped file".to_owned(),
        Role::Peer | Role::Legacy | Role::Old => {
            let version =
                candidate.version.as_deref().map_or_else(String::new, |version| format!(" {version}"));
            match candidate.name.strip_prefix("globus-url-copy-") {
                Some(streams) => format!("GridFTP{version} -p {streams}"),
                None => format!("{}{version}", candidate.name),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(name: &str, role: Role, best: f64) -> Candidate {
        Candidate {
            name: name.to_owned(),
            role,
            version: None,
            best,
            median: best * 1.2,
            seconds: vec![],
            failed: 0,
            client_cpu: None,
            server_cpu: None,
        }
    }

    fn run() -> Run {
        let text = |text: &str| text.to_owned();
        Run {
            benchmark: text("bench-loopback"),
            date: text("2026-01-02"),
            machine: text("2 cores"),
            medium: text("memory"),
            size: 2 << 30,
            streams: 8,
            rounds: 7,
        }
    }

    #[test]
    fn best_stream_count_and_best_limit_are_drawn() {
        let candidates = [
            candidate("globus-url-copy-1", Role::Peer, 1.5),
            candidate("globus-url-copy-4", Role::Peer, 1.4),
            candidate("dtclient-1", Role::Legacy, 1.0),
            candidate("netlimit, populate", Role::Limit, 1.1),
            candidate("netlimit, fallocate and populate", Role::Limit, 1.2),
            candidate("dtclient", Role::Verified, 1.3),
            candidate("curl", Role::Peer, 1.6),
        ];
        let names: Vec<_> = bars(&run(), &candidates).into_iter().map(|bar| bar.name).collect();
        assert_eq!(
            names,
            ["limit: sendfile to mapped file", "dtclient, every block verified", "GridFTP -p 4", "curl"]
        );
    }

    #[test]
    fn chart_names_units_date_and_machine_and_begins_at_zero() {
        for theme in Theme::ALL {
            let svg = draw(&run(), &[candidate("dtclient", Role::Verified, 2.0)], theme).unwrap();
            for text in ["GB/s", "2026-01-02, 2 cores", "dtclient, every block verified", "\n0.0\n", "1.07"] {
                assert!(svg.contains(text), "{text}: {svg}");
            }
        }
        assert!(draw(&run(), &[], Theme::Light).is_err());
    }
}
