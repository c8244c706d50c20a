//! Bars: the share of the roofline that each operation reaches on each backend.

use super::{
    number, pick,
    svg::{Canvas, MARGIN, Point, WIDTH},
    targets,
};
use crate::suite::results::{Measurement, Run};

/// What the bars are.
pub const HEADING: &str = "Share of the roofline";

/// Panels are set in two columns.
const COLUMNS: usize = 2;
const GUTTER: f64 = 24.0;
/// Room for names and thread counts at the left of the bars, and for values at their right.
const NAMES: f64 = 100.0;
const VALUES: f64 = 98.0;
/// Where a panel's bars begin, and what is below them.
const TOP: f64 = 44.0;
const BOTTOM: f64 = 34.0;
const BAR: f64 = 12.0;
/// Between the bars of one backend, and between backends.
const NARROW: f64 = 2.0;
const WIDE: f64 = 8.0;
/// Bars are drawn up to this share; a longer one is cut and says its value.
const MOST: f64 = 1.5;

/// One operation.
#[derive(Debug)]
struct Panel<'a> {
    operation: &'a str,
    results: Vec<&'a Measurement>,
}

/// Where a panel's bars go.
#[derive(Debug, Clone, Copy)]
struct Frame {
    left: f64,
    top: f64,
    width: f64,
    /// The share at the right end.
    most: f64,
}

/// All panels, if there is anything to draw.
pub fn draw(run: &Run) -> Option<Canvas> {
    let panels = panels(run);
    let most = panels.iter().flat_map(|panel| &panel.results).filter_map(|result| ratio(result));
    let most = most.fold(1.05_f64, f64::max).min(MOST);
    let mut canvas = Canvas::new();
    key(&mut canvas);
    for row in panels.chunks(COLUMNS) {
        let top = canvas.height();
        let column = (WIDTH - 2.0 * MARGIN + GUTTER) / COLUMNS as f64;
        for (i, panel) in row.iter().enumerate() {
            let left = MARGIN + NAMES + column * i as f64;
            let width = column - GUTTER - NAMES - VALUES;
            panel.draw(run, Frame { left, top: top + TOP, width, most }, &mut canvas);
        }
        canvas.skip(TOP + BOTTOM + row.iter().map(Panel::height).fold(0.0, f64::max));
    }
    (!panels.is_empty()).then_some(canvas)
}

/// What the marks mean.
fn key(canvas: &mut Canvas) {
    let y = 12.0;
    let [roof, target, threads] = [0.0, 464.0, 668.0].map(|offset| MARGIN + offset);
    canvas.line("roof", (roof + 1.0, y - 10.0), (roof + 1.0, y + 2.0));
    canvas.text("note", roof + 8.0, y, "1.0 is what reads, or multiply-adds, alone reach on as many threads");
    canvas.line("target core", (target + 1.0, y - 10.0), (target + 1.0, y + 2.0));
    canvas.text("note", target + 8.0, y, "target; a missed one in red");
    canvas.text("note", threads, y, "number before a bar: threads");
    canvas.skip(22.0);
}

/// The headline measurements that have a share of the roofline, by operation and in the order of backends.
fn panels(run: &Run) -> Vec<Panel<'_>> {
    let mut results = pick::headlines(run);
    results.retain(|result| ratio(result).is_some());
    results.sort_by_key(|result| (pick::backend_rank(&result.backend), result.threads));
    let of = |operation| results.iter().copied().filter(move |result| result.operation == operation);
    let operations = pick::operations(&results).into_iter();
    operations.map(|operation| Panel { operation, results: of(operation).collect() }).collect()
}

/// The share of the roofline, if it is a number that a bar can have.
fn ratio(result: &Measurement) -> Option<f64> {
    result.roofline_ratio.filter(|ratio| ratio.is_finite() && *ratio >= 0.0)
}

impl Panel<'_> {
    /// From the top of the first bar to the bottom of the last.
    fn height(&self) -> f64 {
        self.tops().last().map_or(0.0, |top| top + BAR)
    }

    /// Where each bar begins.
    fn tops(&self) -> Vec<f64> {
        let mut y = 0.0;
        let mut last: Option<&str> = None;
        let mut tops = Vec::with_capacity(self.results.len());
        for result in &self.results {
            y += match last {
                None => 0.0,
                Some(backend) if backend == result.backend => BAR + NARROW,
                Some(_) => BAR + WIDE,
            };
            tops.push(y);
            last = Some(&result.backend);
        }
        tops
    }

    fn draw(&self, run: &Run, frame: Frame, canvas: &mut Canvas) {
        self.head(frame, canvas);
        frame.scale(self.height(), canvas);
        let mut last = None;
        for (result, top) in self.results.iter().zip(self.tops()) {
            let y = frame.top + top;
            if last != Some(&result.backend) {
                canvas.text("value right", frame.left - 26.0, y + 10.0, &result.backend);
            }
            last = Some(&result.backend);
            frame.bar(run, result, y, canvas);
        }
        let (top, bottom) = (frame.top - 4.0, frame.top + self.height() + 4.0);
        canvas.line("roof", (frame.x(1.0), top), (frame.x(1.0), bottom));
    }

    /// The operation, what it ran on and what bounds it.
    fn head(&self, frame: Frame, canvas: &mut Canvas) {
        let left = frame.left - NAMES;
        canvas.text("head", left, frame.top - 28.0, &number::operation(self.operation));
        let Some(first) = self.results.first() else { return };
        let bound = match (first.bytes_per_second, first.flops_per_second) {
            (Some(_), _) => "of read bandwidth",
            (None, Some(_)) => "of peak arithmetic",
            (None, None) => "",
        };
        canvas.text("note right", frame.left + frame.width + VALUES, frame.top - 28.0, bound);
        canvas.text("note", left, frame.top - 12.0, &number::words(&first.shape));
    }
}

impl Frame {
    fn x(&self, share: f64) -> f64 {
        self.left + self.width * share.min(self.most) / self.most
    }

    /// Grid lines and their numbers.
    fn scale(&self, height: f64, canvas: &mut Canvas) {
        let (top, bottom) = (self.top - 4.0, self.top + height + 4.0);
        for (share, label) in [(0.0, "0"), (0.25, ""), (0.5, "0.5"), (0.75, ""), (1.0, "1.0")] {
            let x = self.x(share);
            canvas.line(if share > 0.0 { "grid" } else { "axis" }, (x, top), (x, bottom));
            canvas.text("tick middle", x, bottom + 13.0, label);
        }
    }

    /// One measurement: threads, bar, target, value.
    fn bar(&self, run: &Run, result: &Measurement, y: f64, canvas: &mut Canvas) {
        let Some(share) = ratio(result) else { return };
        let target = targets::ratio(&run.machine, result);
        let some = if result.threads < run.machine.threads { " some" } else { "" };
        let class = format!("{}{some}", pick::backend_class(&result.backend));
        let size: Point = (self.x(share) - self.left, BAR);
        canvas.text("tick right", self.left - 6.0, y + 10.0, &result.threads.to_string());
        // Bars of fewer threads are pale: nothing is to shine through.
        canvas.block("paper", (self.left, y), size);
        canvas.bar(&class, (self.left, y), size, &number::duration(result.seconds));
        if let Some(target) = target {
            let x = self.x(target);
            canvas.line("target", (x, y - 1.0), (x, y + BAR + 1.0));
            canvas.line("target core", (x, y - 1.0), (x, y + BAR + 1.0));
        }
        let value = number::significant(share);
        let (class, words) = match target {
            Some(target) if share < target => ("missed", format!("{value} < {target:.2}")),
            _ => ("value", value),
        };
        canvas.text(class, self.left + self.width + 10.0, y + 10.0, &words);
    }
}
