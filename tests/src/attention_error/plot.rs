//! The figures as a picture: a panel per context and layer, error over bytes, both in powers.

use super::Figure;
use a2ats_kernel::decode::Estimate;
use plotters::{
    coord::{Shift, combinators::LogCoord},
    prelude::*,
};
use std::{error::Error, ops::Range, path::Path};

/// Of a panel.
const WIDTH: u32 = 360;
const HEIGHT: u32 = 250;

/// The errors that there is room for.
const ERRORS: Range<f64> = 0.02..1.2;

/// Lines of as many codewords have one colour; those with the estimate are thick, those with averaged scores thin, those without have
/// rings.
const COLOURS: [RGBColor; 3] = [RGBColor(200, 120, 0), RGBColor(0, 130, 110), RGBColor(60, 80, 190)];

/// Draws all figures as an SVG file.
///
/// # Errors
/// If the file cannot be written.
pub fn draw(figures: &[Figure], file: &Path) -> Result<(), Box<dyn Error>> {
    let mut contexts: Vec<usize> = figures.iter().map(|figure| figure.tokens).collect();
    contexts.dedup();
    let layers = figures.iter().map(|figure| figure.layer + 1).max().unwrap_or(0);
    let size = (WIDTH * layers as u32, HEIGHT * contexts.len() as u32);
    let area = SVGBackend::new(file, size).into_drawing_area();
    area.fill(&WHITE)?;
    let panels = area.split_evenly((contexts.len(), layers));
    for (panel, area) in panels.iter().enumerate() {
        let (tokens, layer) = (contexts[panel / layers], panel % layers);
        let here: Vec<&Figure> =
            figures.iter().filter(|figure| (figure.tokens, figure.layer) == (tokens, layer)).collect();
        draw_panel(area, &here, panel == 0)?;
    }
    area.present()?;
    Ok(())
}

fn range(values: impl Iterator<Item = f64>) -> Range<f64> {
    let (least, most) = values.fold((f64::INFINITY, 0.0_f64), |(least, most), x| (least.min(x), most.max(x)));
    least * 0.85..most * 1.2
}

fn draw_panel(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    figures: &[&Figure],
    with_legend: bool,
) -> Result<(), Box<dyn Error>> {
    let Some(first) = figures.first() else { return Ok(()) };
    let bytes = range(figures.iter().map(|figure| figure.bytes / 1024.0));
    let mut chart = ChartBuilder::on(area)
        .caption(format!("layer {}, {} tokens", first.layer, first.tokens), ("sans-serif", 14))
        .margin(8)
        .x_label_area_size(32)
        .y_label_area_size(44)
        .build_cartesian_2d(bytes.log_scale(), ERRORS.log_scale())?;
    chart
        .configure_mesh()
        .x_desc("KiB read per step")
        .y_desc("error of the attention output")
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y}"))
        .bold_line_style(BLACK.mix(0.15))
        .light_line_style(TRANSPARENT)
        .draw()?;
    let mut codewords: Vec<usize> = figures.iter().map(|figure| figure.way.codewords).collect();
    codewords.dedup();
    codewords.sort_unstable();
    codewords.dedup();
    for (codewords, colour) in codewords.into_iter().zip(COLOURS) {
        for estimate in [Estimate::Off, Estimate::Fixed, Estimate::Averaged] {
            let of_line =
                figures.iter().filter(|f| f.way.codewords == codewords && f.way.estimate == estimate);
            let points: Vec<(f64, f64)> =
                of_line.map(|f| (f.bytes / 1024.0, f.error.clamp(ERRORS.start, ERRORS.end))).collect();
            draw_line(&mut chart, &points, colour, estimate, codewords)?;
        }
    }
    if with_legend {
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.8))
            .label_font(("sans-serif", 10))
            .draw()?;
    }
    Ok(())
}

type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<LogCoord<f64>, LogCoord<f64>>>;

fn draw_line(
    chart: &mut Chart<'_, '_>,
    points: &[(f64, f64)],
    colour: RGBColor,
    estimate: Estimate,
    codewords: usize,
) -> Result<(), Box<dyn Error>> {
    let (width, of) = match estimate {
        Estimate::Off => (1, ""),
        Estimate::Fixed => (3, ", with estimate"),
        Estimate::Averaged => (1, ", with averaged estimate"),
    };
    let style = colour.stroke_width(width);
    let name = format!("{codewords} codewords{of}");
    chart
        .draw_series(LineSeries::new(points.iter().copied(), style))?
        .label(name)
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 14, y)], style));
    if estimate == Estimate::Off {
        let ring = |&point: &(f64, f64)| Circle::new(point, 2, style);
        chart.draw_series(points.iter().map(ring))?;
    }
    Ok(())
}
