//! Lines over time, as SVG, with the faults behind them.

use super::FaultRecord;
use std::fmt::Write as _;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 56.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 26.0;

/// A line: its name, its class in the style sheet, and its values; gaps where there are none.
pub struct Series {
    pub name: &'static str,
    pub class: &'static str,
    pub values: Vec<(f64, Option<f64>)>,
}

/// Draws the lines from 0 to their maximum over `seconds`.
pub fn draw(title: &str, unit: &str, seconds: f64, series: &[Series], faults: &[FaultRecord]) -> String {
    let seconds = seconds.max(1.0);
    let highest = series.iter().flat_map(|one| &one.values).filter_map(|(_, value)| *value).fold(1.0, f64::max);
    let top = nice(highest);
    let x = |at: f64| LEFT + at.clamp(0.0, seconds) / seconds * (WIDTH - LEFT);
    let y = |value: f64| TOP + (1.0 - (value / top).clamp(0.0, 1.0)) * (HEIGHT - TOP - BOTTOM);
    let mut svg =
        format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n", super::html::escape(title));
    for fault in faults {
        if let Some(begun) = fault.begun_s {
            let healed = fault.healed_s.unwrap_or(fault.gone_s);
            for (class, from, to) in [("fault", begun, healed), ("recovery", healed, fault.gone_s)] {
                let _ = writeln!(
                    svg,
                    "<rect class=\"{class}\" x=\"{:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.1}\"><title>{} ({from:.1} s to {to:.1} s)</title></rect>",
                    x(from),
                    (x(to) - x(from)).max(1.0),
                    HEIGHT - TOP - BOTTOM,
                    super::html::escape(&fault.name)
                );
            }
        }
    }
    for part in 0..=4 {
        let value = top * f64::from(part) / 4.0;
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{0:.1}\" y2=\"{0:.1}\"/><text x=\"{1}\" y=\"{2:.1}\" text-anchor=\"end\">{value}</text>",
            y(value),
            LEFT - 6.0,
            y(value) + 4.0
        );
    }
    for part in 0..=6 {
        let at = seconds * f64::from(part) / 6.0;
        let anchor = if part == 6 { "end" } else { "middle" };
        let _ =
            writeln!(svg, "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"{anchor}\">{at:.0} s</text>", x(at), HEIGHT - 8.0);
    }
    for one in series {
        for run in runs(&one.values) {
            let points: Vec<String> = run.iter().map(|(at, value)| format!("{:.1},{:.1}", x(*at), y(*value))).collect();
            let _ = writeln!(svg, "<polyline class=\"{}\" points=\"{}\"/>", one.class, points.join(" "));
        }
    }
    svg.push_str("</svg>\n");
    let legend: Vec<String> =
        series.iter().map(|one| format!("<span class=\"key {}\">{}</span>", one.class, one.name)).collect();
    format!("<h3>{} <small>{unit}</small> {}</h3>\n{svg}", super::html::escape(title), legend.join(" "))
}

/// The stretches without a gap.
fn runs(values: &[(f64, Option<f64>)]) -> Vec<Vec<(f64, f64)>> {
    let mut runs: Vec<Vec<(f64, f64)>> = Vec::new();
    let mut open = false;
    for (at, value) in values {
        match (value, open) {
            (Some(value), true) => {
                if let Some(run) = runs.last_mut() {
                    run.push((*at, *value));
                }
            }
            (Some(value), false) => runs.push(vec![(*at, *value)]),
            (None, _) => {}
        }
        open = value.is_some();
    }
    runs
}

/// The next number at or above that is easy to read, and whose quarters are.
fn nice(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 4.0, 8.0, 10.0].iter().map(|step| step * power).find(|nice| *nice >= value).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_broken_where_there_is_no_value() {
        let values = [(0.0, Some(1.0)), (1.0, Some(2.0)), (2.0, None), (3.0, Some(3.0))];
        assert_eq!(runs(&values), [vec![(0.0, 1.0), (1.0, 2.0)], vec![(3.0, 3.0)]]);
    }

    #[test]
    fn axes_end_at_numbers_that_are_easy_to_read() {
        assert_eq!([nice(1.0), nice(3.0), nice(41.0), nice(850.0)], [1.0, 4.0, 80.0, 1000.0]);
    }
}
