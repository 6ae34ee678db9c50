//! The page: one file, nothing loaded from anywhere, no scripts.

use super::{
    Report,
    chart::{self, Series},
    mark,
};
use crate::chaos::timeline::Point;
use std::fmt::Write as _;

const STYLE: &str = "
:root { color-scheme: light dark; --line: #8884; --good: #1a7f37; --bad: #cf222e; --first: #0969da; --second: #bf3989; --third: #9a6700 }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 small, h3 small { font-weight: normal; opacity: .7 }
table { border-collapse: collapse; width: 100% } td, th { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid var(--line) }
pre { padding: .6rem; border: 1px solid var(--line); overflow-x: auto } .passed, .good { color: var(--good) } .violated, .bad { color: var(--bad) }
svg { width: 100%; height: auto; font: 11px system-ui, sans-serif } svg text { fill: currentColor; opacity: .7 } .grid { stroke: var(--line) }
polyline { fill: none; stroke-width: 1.5 } polyline.first { stroke: var(--first) } polyline.second { stroke: var(--second) } polyline.third { stroke: var(--third) }
.key { font-size: .8rem; font-weight: normal } .key.first { color: var(--first) } .key.second { color: var(--second) } .key.third { color: var(--third) }
rect.fault { fill: #cf222e33 } rect.recovery { fill: #d4a72c33 }
";

pub fn render(report: &Report) -> String {
    let plan = &report.plan;
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>quorate chaos: {0}, seed {1}</title><style>{STYLE}</style></head><body>\n\
         <h1>quorate chaos: <span class=\"{0}\">{0}</span> <small>seed {1}, {2} nodes, {3:?}, {4} clients</small></h1>\n",
        report.verdict, plan.seed, plan.nodes, plan.duration, plan.clients
    );
    if let Some(broken) = report.sabotage {
        let _ =
            writeln!(page, "<p class=\"bad\">SABOTAGE: the nodes broke a promise on purpose: {}</p>", escape(broken));
    }
    let _ = writeln!(page, "<p>The same again:</p><pre>{}</pre>", escape(&report.command));
    verdicts(&mut page, report);
    charts(&mut page, report);
    faults(&mut page, report);
    facts(&mut page, report);
    page.push_str("</body></html>\n");
    page
}

fn verdicts(page: &mut String, report: &Report) {
    page.push_str("<h2>Verdicts</h2>\n<table><tr><th></th><th>invariant</th><th>judged</th></tr>\n");
    for verdict in &report.verdicts {
        let (sign, what) = mark(verdict);
        let class = if verdict.violations.is_empty() { "good" } else { "bad" };
        let _ = write!(
            page,
            "<tr><td class=\"{class}\">{sign}</td><td>{}</td><td>{}",
            escape(verdict.invariant),
            escape(&what)
        );
        for violation in &verdict.violations {
            let _ = write!(page, "<br><span class=\"bad\">{}</span>", escape(&violation.detail));
            if !violation.operations.is_empty() {
                let _ = write!(page, " <small>operations {:?}</small>", violation.operations);
            }
        }
        page.push_str("</td></tr>\n");
    }
    page.push_str("</table>\n");
}

fn charts(page: &mut String, report: &Report) {
    let points = &report.timeline;
    let ends = points.last().map_or(0.0, |point| point.at_s);
    let series = |name, class, value: fn(&Point) -> Option<f64>| Series {
        name,
        class,
        values: points.iter().map(|point| (point.at_s, value(point))).collect(),
    };
    let throughput = [
        series("acknowledged", "first", |point| Some(point.acknowledged_per_s)),
        series("refused", "second", |point| Some(point.refused_per_s)),
        series("unknown", "third", |point| Some(point.unknown_per_s)),
    ];
    let latency = [series("p50", "first", |point| point.p50_ms), series("p99", "second", |point| point.p99_ms)];
    page.push_str("<h2>Timeline</h2>\n<p>Red: a fault in force. Yellow: healed, not yet gone. Names are shown under the pointer.</p>\n");
    page.push_str(&chart::draw("Throughput", "per second", ends, &throughput, &report.faults));
    page.push_str(&chart::draw("Latency", "ms", ends, &latency, &report.faults));
}

fn faults(page: &mut String, report: &Report) {
    page.push_str(
        "<h2>Faults</h2>\n<table><tr><th>begun</th><th>healed</th><th>gone</th><th>fault</th>\
         <th>longest time without an acknowledged write</th></tr>\n",
    );
    for fault in &report.faults {
        let at = |time: Option<f64>| time.map_or_else(|| "–".into(), |time| format!("{time:.1} s"));
        let gap = fault.longest_gap_ms.map_or_else(|| "–".into(), |gap| format!("{gap} ms"));
        let _ = write!(
            page,
            "<tr><td>{}</td><td>{}</td><td>{:.1} s</td><td>{}<br><small>{}</small>",
            at(fault.begun_s),
            at(fault.healed_s),
            fault.gone_s,
            escape(&fault.name),
            escape(fault.expectation)
        );
        if let Some(trouble) = &fault.trouble {
            let _ = write!(page, "<br><span class=\"bad\">{}</span>", escape(trouble));
        }
        let _ = writeln!(page, "</td><td>{gap}</td></tr>");
    }
    page.push_str("</table>\n");
}

fn facts(page: &mut String, report: &Report) {
    let totals = &report.totals;
    let rows = [
        (
            "attempts",
            format!(
                "{} ({} acknowledged, {} of them writes; {} declined; {} refused; {} unknown)",
                totals.operations,
                totals.acknowledged,
                totals.acknowledged_writes,
                totals.declined,
                totals.refused,
                totals.unknown
            ),
        ),
        ("quorate", report.version.to_owned()),
        (
            "machine",
            format!(
                "{} cores, {}; nodes, clients and whatever is between them share them",
                report.system.cores, report.system.kernel
            ),
        ),
        ("network", report.network.render()),
        ("copies of each shard", report.plan.ground().replication_factor().to_string()),
        ("logs and data", report.evidence.clone().unwrap_or_else(|| "not kept".into())),
    ];
    page.push_str("<h2>Facts</h2>\n<table>\n");
    for (name, value) in rows {
        let _ = writeln!(page, "<tr><th>{name}</th><td>{}</td></tr>", escape(&value));
    }
    page.push_str("</table>\n");
}

/// Text as it may stand in an element or in a quoted attribute.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}
