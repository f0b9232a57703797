//! The page: sections in reading order, one style sheet, no script.
//!
//! It may load nothing and run nothing: its policy allows its own style sheet, by hash. Names and texts of models stand
//! in elements that isolate their direction.
//!
//! Read next: [`super::ladder`], [`super::chart`], [`super::transcripts`].

use base64::prelude::{BASE64_STANDARD, Engine};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use store::StageRow;
use train::stats::CalibrationBin;

use super::data::{Curve, Report};
use super::figures::{axis, count, percent};
use super::findings::Finding;
use super::ladder::head;
use super::words::{Language, Words};
use super::{chart, ladder, transcripts};

const STYLE: &str = include_str!("page.css");

/// The whole document.
pub fn html(report: &Report, language: Language) -> String {
    let words = language.words();
    let transcripts = html! { @for stage in &report.transcripts { (transcripts::section(stage, words)) } };
    let sections = [
        ("ladder", words.ladder, ladder_body(report, words)),
        ("curves", words.curves, curves(report, words)),
        ("transcripts", words.transcripts, transcripts),
        ("calibration", words.calibration, calibration(report, words)),
        ("further", words.further, further(report, words)),
        ("notices", words.notices, notices(&report.findings, words)),
        ("weights", words.provenance, provenance(report, words)),
        ("recipe", words.recipe, recipe(report, words)),
    ];
    let hash = BASE64_STANDARD.encode(Sha256::digest(STYLE));
    let policy = format!("default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'");
    let page = html! {
        (DOCTYPE)
        html lang=(words.code) {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy);
                meta name="referrer" content="no-referrer";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="generator" content="Ferule";
                title { (report.name) " · Ferule" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (header(report, words))
                (honest(report, words))
                @for (id, title, body) in sections.iter().filter(|(_, _, body)| !body.0.is_empty()) {
                    section id=(id) { h2 { (title) } (body) }
                }
            }
        }
    };
    page.into_string()
}

fn header(report: &Report, words: &Words) -> Markup {
    let resumed = report.openings.len().saturating_sub(1);
    let facts = [
        report.task.as_ref().map(|task| html! { (words.task) " " bdi { (task) } }),
        report.seed.map(|seed| html! { (words.seed) " " (seed) }),
        (resumed > 0).then(|| html! { (words.taken_up.replace("{}", &resumed.to_string())) }),
        report.unfinished.then(|| html! { span.warn { (words.unfinished) } }),
    ];
    html! {
        header.top {
            p { (words.report) }
            h1 { bdi { (report.name) } }
            p { @for (i, fact) in facts.iter().flatten().enumerate() { @if i > 0 { " · " } (fact) } }
        }
    }
}

fn honest(report: &Report, words: &Words) -> Markup {
    let judgment = report.task.as_deref() == Some("judgment");
    let besides = if judgment { words.honest_judgment } else { &[] };
    html! {
        aside {
            h2 { (words.honest) }
            ul { @for caveat in besides.iter().chain(words.honest_always) { li { (caveat) } } }
        }
    }
}

fn ladder_body(report: &Report, words: &Words) -> Markup {
    if report.stages.is_empty() && report.baselines.is_empty() {
        return html! { p { (words.nothing_yet) } };
    }
    html! { (ladder::table(report, words)) p.note { (words.ladder_note) } }
}

/// The curves that are shown first. The others are folded below them.
const FIRST: [&str; 11] = [
    "reward",
    "validation_accuracy",
    "loss",
    "divergence",
    "hidden_error",
    "closeness",
    "entropy",
    "completion_tokens",
    "unfinished",
    "groups_all_equal",
    "kept",
];

/// The curves that are shown first, in their order, and the others.
fn split(curves: &[Curve]) -> (Vec<&Curve>, Vec<&Curve>) {
    let place = |curve: &&Curve| match FIRST.iter().position(|name| *name == curve.name) {
        None if curve.name.starts_with("rule ") => Some(FIRST.len()),
        place => place,
    };
    let (mut first, rest): (Vec<&Curve>, Vec<&Curve>) = curves.iter().partition(|c| place(c).is_some());
    first.sort_by_key(place);
    (first, rest)
}

fn curves(report: &Report, words: &Words) -> Markup {
    let multiples =
        |curves: &[&Curve]| html! { div.multiples { @for curve in curves { (chart::figure(curve, words)) } } };
    let binned = report.curves.iter().flat_map(|s| &s.curves).any(|c| c.points.len() > chart::POINTS);
    html! {
        @if binned { p.note { (words.binned) } }
        @for stage in report.curves.iter().filter(|s| !s.curves.is_empty()) {
            @let (first, rest) = split(&stage.curves);
            h3 { bdi { (stage.stage) } }
            (multiples(&first))
            @if !rest.is_empty() {
                details.more {
                    summary { (words.more_curves.replace("{}", &rest.len().to_string())) }
                    (multiples(&rest))
                }
            }
        }
    }
}

/// A table; empty if it has no rows.
fn table(columns: &[&str], rows: impl IntoIterator<Item = Markup>) -> Markup {
    let mut rows = rows.into_iter().peekable();
    html! {
        @if rows.peek().is_some() {
            table.plain {
                @if !columns.is_empty() { (head(columns)) }
                tbody { @for row in rows { tr { (row) } } }
            }
        }
    }
}

fn calibration(report: &Report, words: &Words) -> Markup {
    let stages: Vec<Markup> = report.stages.iter().filter_map(|row| calibration_of(row, words)).collect();
    html! {
        @if !stages.is_empty() {
            p.note { (words.calibration_note) }
            div.pair { @for stage in stages { (stage) } }
        }
    }
}

fn calibration_of(row: &StageRow, words: &Words) -> Option<Markup> {
    let calibration = Report::calibration(row)?;
    let answered = words
        .coverage
        .replace("{coverage}", &percent(calibration.coverage))
        .replace("{target}", &percent(calibration.target_accuracy));
    let threshold = calibration.threshold.map(|share| words.threshold.replace("{}", &percent(share)));
    let bin = |b: &CalibrationBin| {
        html! {
            td { (percent(b.confidence)) } td { (percent(b.accuracy)) } td { (count(b.n)) }
            td.bar { (bar(b.accuracy, b.confidence)) }
        }
    };
    Some(html! {
        div {
            h3 { bdi { (row.stage) } " " small { "ECE " (percent(calibration.ece)) } }
            p.note { (answered) @if let Some(threshold) = threshold { "; " (threshold) } }
            (table(&words.calibration_columns, calibration.bins.iter().map(bin)))
        }
    })
}

/// A share as a bar, with a mark at another one.
fn bar(share: f64, mark: f64) -> Markup {
    let x = (100.0 * mark).clamp(0.0, 99.0);
    html! {
        svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true" {
            rect.track y="3.5" width="100" height="1" {}
            rect.interval y="2" width=(format_args!("{:.2}", 100.0 * share)) height="4" {}
            rect.dot x=(format_args!("{x:.2}")) width="1" height="8" {}
        }
    }
}

/// Numbers of [`StageRow::extra`] without a section of their own; nested ones are named by their paths.
fn further(report: &Report, words: &Words) -> Markup {
    let baselines = report.baselines.iter().map(|b| (words.baseline(&b.name), &b.extra));
    let all = baselines.chain(report.stages.iter().map(|s| (s.stage.as_str(), &s.extra)));
    let row = |(name, extra): (&str, &Map<String, Value>)| {
        let mut leaves = Vec::new();
        extra.iter().filter(|(k, _)| *k != "calibration" && *k != "correct").for_each(|(k, v)| walk(k, v, &mut leaves));
        let cell = html! { @for (path, value) in &leaves { span { i { bdi { (path) } } " " bdi { (value) } } " " } };
        (!leaves.is_empty()).then(|| html! { th scope="row" { bdi { (name) } } td.loose { (cell) } })
    };
    table(&[], all.filter_map(row))
}

fn walk(path: &str, value: &Value, leaves: &mut Vec<(String, String)>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(k, v)| walk(&format!("{path} · {k}"), v, leaves)),
        Value::Number(n) => leaves.push((path.to_owned(), n.as_f64().map_or_else(|| n.to_string(), axis))),
        Value::String(s) => leaves.push((path.to_owned(), s.clone())),
        Value::Bool(b) => leaves.push((path.to_owned(), b.to_string())),
        Value::Null | Value::Array(_) => {}
    }
}

/// One line for each finding.
fn notices(all: &[Finding], words: &Words) -> Markup {
    if all.is_empty() {
        return html! { p { (words.no_notices) } };
    }
    let row = |finding: &Finding| {
        let sentence = finding.of.and_then(|of| words.finding(&finding.kind, finding.count, of));
        html! {
            th scope="row" { bdi { (finding.stage.as_deref().unwrap_or("–")) } }
            td { bdi { (finding.kind) } } td { (count(finding.count)) }
            td.loose { bdi { (sentence.as_ref().unwrap_or(&finding.text)) } }
        }
    };
    table(&words.notice_columns, all.iter().map(row))
}

fn provenance(report: &Report, words: &Words) -> Markup {
    let row = |row: &StageRow| {
        let digest = row.digest.as_ref()?;
        Some(
            html! { th scope="row" { bdi { (row.stage) } } td { bdi { (row.model) } } td.loose { code { bdi { (digest) } } } },
        )
    };
    table(&words.provenance_columns, report.stages.iter().filter_map(row))
}

fn recipe(report: &Report, words: &Words) -> Markup {
    html! { @if !report.recipe.is_empty() { details { summary { (words.recipe) } pre { (report.recipe) } } } }
}
