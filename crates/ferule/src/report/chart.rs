//! Curves as inline SVG: small charts of one number each, with the extremes written out.
//!
//! Up to [`POINTS`] points are drawn as they are. More points are drawn as bins of neighbouring steps: the line is the
//! mean, the band behind it goes from the least to the greatest value, and the page says so. Points that are not finite
//! leave a gap.
//!
//! Read next: [`super::page`].

use std::fmt::Write;

use maud::{Markup, html};

use super::data::Curve;
use super::figures::axis;
use super::words::Words;

const WIDTH: f64 = 264.0;
const HEIGHT: f64 = 96.0;
const PAD: f64 = 4.0;
/// The largest number of points that are drawn without binning.
pub const POINTS: usize = 240;

/// One column of the chart: a step, or several neighbouring steps.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Column {
    x: f64,
    low: f64,
    mean: f64,
    high: f64,
}

/// One curve with its caption, as a `<figure>`.
pub fn figure(curve: &Curve, words: &Words) -> Markup {
    let columns = columns_of(&curve.points);
    let finite: Vec<Column> = columns.iter().copied().filter(|c| c.mean.is_finite()).collect();
    let Some(last) = curve.points.iter().rev().find(|p| p.1.is_finite()) else {
        return html! { figure { figcaption { b { bdi { (curve.name) } } " " (words.not_finite) } } };
    };
    let low = finite.iter().map(|c| c.low).fold(f64::INFINITY, f64::min);
    let high = finite.iter().map(|c| c.high).fold(f64::NEG_INFINITY, f64::max);
    let (first_x, last_x) = (curve.points[0].0, curve.points[curve.points.len() - 1].0);
    let x =
        |v: f64| PAD + (WIDTH - 2.0 * PAD) * if last_x > first_x { (v - first_x) / (last_x - first_x) } else { 0.5 };
    let y = |v: f64| PAD + (HEIGHT - 2.0 * PAD) * if high > low { (high - v) / (high - low) } else { 0.5 };
    let name = &curve.name;
    let (end_x, end_y) = (x(last.0).min(WIDTH - PAD), y(last.1));
    let (start, end) = (axis(finite[0].mean), axis(last.1));
    let (low, high) = (axis(low), axis(high));
    let range = if low == high { low } else { format!("{low} … {high}") };
    html! {
        figure {
            figcaption { b { bdi { (name) } } " " span.num { (end) } }
            svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label={ (name) ": " (start) " → " (end) } {
                @if curve.points.len() > POINTS { polygon.band points=(band(&finite, x, y)) {} }
                path.line d=(line(&columns, x, y)) {}
                circle.end cx=(format_args!("{end_x:.1}")) cy=(format_args!("{end_y:.1}")) r="2.2" {}
            }
            div.axis {
                span { (range) }
                span { (words.steps.replace("{}", &format!("{first_x:.0}–{last_x:.0}"))) }
            }
        }
    }
}

fn columns_of(points: &[(f64, f64)]) -> Vec<Column> {
    let size = points.len().div_ceil(POINTS).max(1);
    let column = |bin: &[(f64, f64)]| {
        let values: Vec<f64> = bin.iter().map(|p| p.1).filter(|v| v.is_finite()).collect();
        Column {
            x: bin[bin.len() / 2].0,
            low: values.iter().copied().fold(f64::INFINITY, f64::min),
            mean: values.iter().sum::<f64>() / values.len() as f64,
            high: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        }
    };
    points.chunks(size).map(column).collect()
}

/// The data of the path through the means.
fn line(columns: &[Column], x: impl Fn(f64) -> f64, y: impl Fn(f64) -> f64) -> String {
    let mut path = String::new();
    let mut pen_down = false;
    for column in columns {
        if column.mean.is_finite() {
            let letter = if pen_down { 'L' } else { 'M' };
            write!(path, "{letter}{:.1} {:.1}", x(column.x), y(column.mean)).expect("a string takes all");
        }
        pen_down = column.mean.is_finite();
    }
    path
}

/// The corners of the band.
fn band(columns: &[Column], x: impl Fn(f64) -> f64, y: impl Fn(f64) -> f64) -> String {
    let above = columns.iter().map(|c| (c.x, c.high));
    let below = columns.iter().rev().map(|c| (c.x, c.low));
    let points: Vec<String> = above.chain(below).map(|(a, b)| format!("{:.1},{:.1}", x(a), y(b))).collect();
    points.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Language;

    fn curve(points: impl IntoIterator<Item = f64>) -> Curve {
        Curve { name: "a<b".into(), points: (1..).map(f64::from).zip(points).collect() }
    }

    #[test]
    fn extremes_ends_and_gaps_are_drawn() {
        let svg = figure(&curve([1.0, f64::NAN, 3.0, 2.0]), Language::English.words()).into_string();
        assert!(svg.contains("1 … 3") && svg.contains("steps 1–4") && svg.contains("a&lt;b"), "{svg}");
        assert_eq!(svg.matches('M').count(), 2, "the line is lifted over the gap: {svg}");
        assert!(svg.contains("d=\"M4.0 92.0M174.7 4.0L260.0 48.0\""), "{svg}");
    }

    #[test]
    fn many_points_are_binned() {
        let svg = figure(&curve((0..1000).map(|i| f64::from(i % 10))), Language::English.words()).into_string();
        assert!(svg.contains("class=\"band\""), "{svg}");
        assert!(svg.contains("0 … 9"), "no extreme is lost: {svg}");
        let nothing = figure(&curve([f64::NAN, f64::NAN]), Language::English.words()).into_string();
        assert!(nothing.contains(Language::English.words().not_finite));
    }
}
