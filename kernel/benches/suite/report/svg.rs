//! The few marks that the drawings are made of.

use std::fmt::Write;

use super::number::escape;

/// Width of every drawing.
pub const WIDTH: f64 = 960.0;
/// Left and right of it.
pub const MARGIN: f64 = 16.0;

/// A drawing that grows downwards.
#[derive(Debug, Clone)]
pub struct Canvas {
    body: String,
    height: f64,
}

/// A place on a [`Canvas`].
pub type Point = (f64, f64);

impl Canvas {
    /// An empty drawing of no height.
    pub fn new() -> Self {
        Self { body: String::new(), height: 0.0 }
    }

    /// How far down the drawing goes.
    pub fn height(&self) -> f64 {
        self.height
    }

    /// Makes the drawing taller.
    pub fn skip(&mut self, height: f64) {
        self.height += height;
    }

    /// A line of text whose baseline is `y`.
    pub fn text(&mut self, class: &str, x: f64, y: f64, text: &str) {
        self.element(&format!(r#"<text class="{class}" x="{x:.1}" y="{y:.1}">{}</text>"#, escape(text)));
    }

    /// A straight line.
    pub fn line(&mut self, class: &str, (x1, y1): Point, (x2, y2): Point) {
        self.element(&format!(
            r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#
        ));
    }

    /// A filled rectangle.
    pub fn block(&mut self, class: &str, (x, y): Point, (width, height): Point) {
        self.element(&format!(
            r#"<rect class="{class}" x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}"/>"#
        ));
    }

    /// A filled rectangle that says what it is when pointed at.
    pub fn bar(&mut self, class: &str, (x, y): Point, (width, height): Point, title: &str) {
        let title = escape(title);
        self.element(&format!(
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\">\
             <title>{title}</title></rect>"
        ));
    }

    /// A dot that says what it is when pointed at.
    pub fn dot(&mut self, class: &str, (x, y): Point, radius: f64, title: &str) {
        let title = escape(title);
        self.element(&format!(
            r#"<circle class="{class}" cx="{x:.1}" cy="{y:.1}" r="{radius}"><title>{title}</title></circle>"#
        ));
    }

    /// A line through points.
    pub fn curve(&mut self, class: &str, points: &[Point]) {
        let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        self.element(&format!(r#"<polyline class="{class}" points="{}"/>"#, points.join(" ")));
    }

    /// Puts another drawing below this one.
    pub fn stack(&mut self, other: &Self) {
        self.element(&format!("<g transform=\"translate(0 {:.1})\">\n{}</g>", self.height, other.body));
        self.height += other.height;
    }

    /// The drawing as a part of a page that has its style, without margins at its sides.
    pub fn inline(&self, label: &str) -> String {
        let (Self { body, height }, label) = (self, escape(label));
        let width = WIDTH - 2.0 * MARGIN;
        format!(
            "<svg viewBox=\"{MARGIN} 0 {width} {height:.0}\" role=\"img\" aria-label=\"{label}\">\n{body}</svg>\n"
        )
    }

    /// The drawing as a file, with its style and on its own paper.
    pub fn standalone(&self, label: &str, style: &str) -> String {
        let (Self { body, height }, label) = (self, escape(label));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" \
             aria-label=\"{label}\">\n<style>\n{style}</style>\n\
             <rect class=\"paper\" width=\"{WIDTH}\" height=\"{height:.0}\"/>\n{body}</svg>\n"
        )
    }

    fn element(&mut self, element: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.body, "{element}");
    }
}
