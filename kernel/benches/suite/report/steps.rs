//! The time of a decode step over the length of the context, on logarithmic axes.

use super::{
    number, pick,
    svg::{Canvas, MARGIN, Point, WIDTH},
};
use crate::suite::results::{Measurement, Parts, Run};

/// What the plot is of.
pub const HEADING: &str = "Time of a decode step of one layer";
/// What the plot shows.
pub const NOTE: &str = "Attention of one new token: to all of the KV cache, or to what A2ATS chooses from it, whose parts \
    are drawn as well. The factor is how much faster that is.";

/// The context at which dense and a2ats are compared, besides the longest.
const COMPARED: usize = 131_072;
/// The plot without its labels.
const LEFT: f64 = MARGIN + 52.0;
const RIGHT: f64 = WIDTH - MARGIN - 132.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 400.0;
const HEIGHT: f64 = 450.0;
/// Between the baselines of labels.
const LINE: f64 = 16.0;

/// One line of the plot: (tokens, seconds) in the order of tokens.
#[derive(Debug)]
struct Series {
    /// Also its style.
    name: &'static str,
    points: Vec<(usize, f64)>,
}

/// Logarithmic axes.
#[derive(Debug, Clone, Copy)]
struct Axes {
    tokens: (f64, f64),
    seconds: (f64, f64),
}

/// The plot, if there is anything to draw.
pub fn draw(run: &Run) -> Option<Canvas> {
    let steps = steps(run);
    let first = steps.first()?;
    let series = [
        series("dense", &steps, pick::DENSE_STEP, |step| Some(step.seconds)),
        series("a2ats", &steps, pick::A2ATS_STEP, |step| Some(step.seconds)),
        part("attend", &steps, |parts| parts.attend),
        part("score", &steps, |parts| parts.score),
        part("retrieve", &steps, |parts| parts.retrieve),
    ];
    let axes = Axes::around(&series)?;
    let mut canvas = Canvas::new();
    canvas.text("note", MARGIN, 12.0, &conditions(first));
    axes.grid(&mut canvas);
    for one in series.iter().rev() {
        one.draw(axes, &mut canvas);
    }
    let [dense, a2ats, ..] = &series;
    compare(dense, a2ats, axes, &mut canvas);
    labels(&series, axes, &mut canvas);
    canvas.skip(HEIGHT);
    Some(canvas)
}

/// The steps of the best backend on as many threads as it was measured with.
fn steps(run: &Run) -> Vec<&Measurement> {
    let mut steps: Vec<&Measurement> = run.results.iter().filter(|result| pick::is_step(result)).collect();
    let Some(backend) = pick::backends(&steps).first().copied() else { return steps };
    steps.retain(|step| step.backend == backend);
    let threads = steps.iter().map(|step| step.threads).max();
    steps.retain(|step| Some(step.threads) == threads);
    steps
}

/// What all steps have in common.
fn conditions(step: &Measurement) -> String {
    let mut shape = step.shape.clone();
    (shape.tokens, shape.attended) = (None, None);
    let threads = number::count(step.threads, "thread");
    number::dotted(&[&step.backend, &threads, &number::words(&shape)])
}

/// One operation's times; of several storage types or head shapes, the first's.
fn series(
    name: &'static str,
    steps: &[&Measurement],
    operation: &str,
    seconds: impl Fn(&Measurement) -> Option<f64>,
) -> Series {
    let mut points: Vec<(usize, f64)> = Vec::new();
    for step in steps.iter().filter(|step| step.operation == operation) {
        let (Some(tokens), Some(seconds)) = (step.shape.tokens, seconds(step)) else { continue };
        let drawable = tokens > 0 && seconds.is_finite() && seconds > 0.0;
        if drawable && !points.iter().any(|(known, _)| *known == tokens) {
            points.push((tokens, seconds));
        }
    }
    points.sort_by_key(|(tokens, _)| *tokens);
    Series { name, points }
}

/// One part of the a2ats steps.
fn part(name: &'static str, steps: &[&Measurement], seconds: fn(Parts) -> f64) -> Series {
    series(name, steps, pick::A2ATS_STEP, |step| step.parts.map(seconds))
}

/// Marks how much faster a2ats is, at [`COMPARED`] tokens and at the longest context that both have.
fn compare(dense: &Series, a2ats: &Series, axes: Axes, canvas: &mut Canvas) {
    let longest =
        a2ats.points.iter().rev().map(|(tokens, _)| *tokens).find(|tokens| dense.at(*tokens).is_some());
    let mut marked = vec![COMPARED];
    marked.extend(longest.filter(|tokens| *tokens != COMPARED));
    for tokens in marked {
        let (Some(slow), Some(fast)) = (dense.at(tokens), a2ats.at(tokens)) else { continue };
        let ((x, high), (_, low)) = (axes.place((tokens, slow)), axes.place((tokens, fast)));
        canvas.line("span", (x, high), (x, low));
        let words = format!("{}×", number::significant(slow / fast));
        canvas.text("factor", x - 7.0, f64::midpoint(high, low) + 5.0, &words);
    }
}

/// Names the lines at their ends, with the last time, none over another.
fn labels(series: &[Series], axes: Axes, canvas: &mut Canvas) {
    let mut ends: Vec<(&str, Point, String)> = Vec::new();
    for one in series {
        if let Some(last) = one.points.last() {
            ends.push((one.name, axes.place(*last), format!("{}, {}", one.name, number::duration(last.1))));
        }
    }
    ends.sort_by(|(_, (_, a), _), (_, (_, b), _)| a.total_cmp(b));
    let heights: Vec<f64> = ends.iter().map(|(_, (_, y), _)| *y).collect();
    for ((name, (x, y), words), label) in ends.into_iter().zip(apart(&heights)) {
        canvas.line("leader", (x + 6.0, y), (x + 18.0, label));
        canvas.text(&format!("halo {name}"), x + 22.0, label + 4.0, &words);
    }
}

/// Moves ascending heights apart to at least [`LINE`], and up again where that leaves the plot.
fn apart(heights: &[f64]) -> Vec<f64> {
    let mut placed = heights.to_vec();
    let mut free = f64::NEG_INFINITY;
    for y in &mut placed {
        *y = y.max(free);
        free = *y + LINE;
    }
    let mut free = BOTTOM + LINE;
    for y in placed.iter_mut().rev() {
        *y = y.min(free);
        free = *y - LINE;
    }
    placed
}

impl Series {
    fn at(&self, tokens: usize) -> Option<f64> {
        self.points.iter().find(|(known, _)| *known == tokens).map(|(_, seconds)| *seconds)
    }

    fn draw(&self, axes: Axes, canvas: &mut Canvas) {
        let places: Vec<Point> = self.points.iter().map(|point| axes.place(*point)).collect();
        canvas.curve(self.name, &places);
        for ((tokens, seconds), place) in self.points.iter().zip(places) {
            let title =
                format!("{}: {} at {}", self.name, number::duration(*seconds), number::tokens(*tokens));
            canvas.dot(self.name, place, 2.6, &title);
        }
    }
}

impl Axes {
    /// The axes that show all points. None without points.
    fn around(series: &[Series]) -> Option<Self> {
        let points = || series.iter().flat_map(|one| &one.points);
        points().next()?;
        let (low, high) = bounds(points().map(|(tokens, _)| (*tokens as f64).log2()));
        let tokens = (low.floor(), high.ceil().max(low.floor() + 1.0));
        let (low, high) = bounds(points().map(|(_, seconds)| seconds.log10()));
        // A third of a decade is a factor of two: axes begin and end near a 1, 2 or 5.
        let seconds = ((low * 3.0).floor() / 3.0, ((high * 3.0).ceil() / 3.0).max(low + 1.0));
        Some(Self { tokens, seconds })
    }

    fn place(&self, (tokens, seconds): (usize, f64)) -> Point {
        (self.x((tokens as f64).log2()), self.y(seconds.log10()))
    }

    fn x(&self, log2: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * (log2 - self.tokens.0) / (self.tokens.1 - self.tokens.0)
    }

    fn y(&self, log10: f64) -> f64 {
        BOTTOM - (BOTTOM - TOP) * (log10 - self.seconds.0) / (self.seconds.1 - self.seconds.0)
    }

    /// Powers of ten that are on the axis of time, and where that makes few, two and five times them.
    fn ticks(&self) -> Vec<(f64, i32)> {
        let (low, high) = self.seconds;
        let mantissas: &[f64] = if high - low > 2.5 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let exponents = low.floor() as i32..=high.floor() as i32;
        let all = exponents.flat_map(|exponent| mantissas.iter().map(move |mantissa| (*mantissa, exponent)));
        let log10 = |(mantissa, exponent): (f64, i32)| f64::from(exponent) + mantissa.log10();
        all.filter(|tick| (low - 1e-9..=high + 1e-9).contains(&log10(*tick))).collect()
    }

    /// Lines at powers of two and at [`Self::ticks`], with their numbers.
    fn grid(&self, canvas: &mut Canvas) {
        let (first, last) = (self.tokens.0 as u32, self.tokens.1 as u32);
        for log2 in (first..=last).step_by((last - first) as usize / 14 + 1) {
            let x = self.x(f64::from(log2));
            canvas.line("grid", (x, TOP), (x, BOTTOM));
            let label = 1_usize.checked_shl(log2).map(number::tokens).unwrap_or_default();
            canvas.text("tick middle", x, BOTTOM + 17.0, &label);
        }
        for (mantissa, exponent) in self.ticks() {
            let y = self.y(f64::from(exponent) + mantissa.log10());
            canvas.line("grid", (LEFT, y), (RIGHT, y));
            canvas.text("tick right", LEFT - 8.0, y + 4.0, &number::power_of_ten(mantissa, exponent + 3));
        }
        canvas.line("axis", (LEFT, BOTTOM), (RIGHT, BOTTOM));
        canvas.text("note middle", f64::midpoint(LEFT, RIGHT), BOTTOM + 36.0, "tokens in the context");
        canvas.text("note right", LEFT - 8.0, TOP - 14.0, "ms");
    }
}

fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
}
