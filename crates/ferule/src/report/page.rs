//! The page: sections in reading order, one style sheet, no script.
//!
//! Read next: [`super::ladder`], [`super::chart`], [`super::transcripts`].

use std::fmt::Write;

use serde_json::Value;
use store::StageRow;

use super::data::{Curve, Report};
use super::figures::{axis, count, escape, percent};
use super::findings::Finding;
use super::words::{Language, Words};
use super::{chart, ladder, transcripts};

/// The whole document.
pub fn html(report: &Report, language: Language) -> String {
    let words = language.words();
    let sections = [
        honest(report, words),
        section("ladder", words.ladder, &ladder_body(report, words)),
        section("curves", words.curves, &curves(report, words)),
        section(
            "transcripts",
            words.transcripts,
            &report.transcripts.iter().map(|t| transcripts::section(t, words)).collect::<String>(),
        ),
        section("calibration", words.calibration, &calibration(report, words)),
        section("further", words.further, &further(report, words)),
        section("notices", words.notices, &notices(&report.findings, words)),
        section("weights", words.provenance, &provenance(report, words)),
        section("recipe", words.recipe, &recipe(report, words)),
    ];
    format!(
        "<!doctype html>\n<html lang=\"{}\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"generator\" content=\"Ferule\">\n\
         <title>{} · Ferule</title>\n<style>\n{}</style>\n</head>\n<body>\n{}\n{}</body>\n</html>\n",
        words.code,
        escape(&report.name),
        include_str!("page.css"),
        header(report, words),
        sections.concat(),
    )
}

/// A section; empty if it has no body.
fn section(id: &str, title: &str, body: &str) -> String {
    if body.is_empty() {
        String::new()
    } else {
        format!("<section id=\"{id}\">\n<h2>{title}</h2>\n{body}\n</section>\n")
    }
}

fn header(report: &Report, words: &Words) -> String {
    let mut facts = Vec::new();
    if let Some(task) = &report.task {
        facts.push(format!("{} {}", words.task, escape(task)));
    }
    if let Some(seed) = report.seed {
        facts.push(format!("{} {seed}", words.seed));
    }
    if report.openings.len() > 1 {
        facts.push(words.taken_up.replace("{}", &(report.openings.len() - 1).to_string()));
    }
    if report.unfinished {
        facts.push(format!("<span class=\"warn\">{}</span>", words.unfinished));
    }
    format!(
        "<header class=\"top\"><p>{}</p><h1>{}</h1><p>{}</p></header>",
        words.report,
        escape(&report.name),
        facts.join(" · ")
    )
}

fn honest(report: &Report, words: &Words) -> String {
    let judgment = report.task.as_deref() == Some("judgment");
    let besides = if judgment { words.honest_judgment } else { &[] };
    let items: String = besides.iter().chain(words.honest_always).map(|w| format!("<li>{w}</li>")).collect();
    format!("<aside><h2>{}</h2><ul>{items}</ul></aside>\n", words.honest)
}

fn ladder_body(report: &Report, words: &Words) -> String {
    if report.stages.is_empty() && report.baselines.is_empty() {
        return format!("<p>{}</p>", words.nothing_yet);
    }
    format!("{}<p class=\"note\">{}</p>", ladder::table(report, words), words.ladder_note)
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

fn curves(report: &Report, words: &Words) -> String {
    let mut out = String::new();
    for stage in report.curves.iter().filter(|s| !s.curves.is_empty()) {
        let place = |curve: &&Curve| match FIRST.iter().position(|name| *name == curve.name) {
            None if curve.name.starts_with("rule ") => Some(FIRST.len()),
            place => place,
        };
        let (mut first, rest): (Vec<&Curve>, Vec<&Curve>) = stage.curves.iter().partition(|c| place(c).is_some());
        first.sort_by_key(place);
        let figures = |curves: &[&Curve]| curves.iter().map(|c| chart::figure(c, words)).collect::<String>();
        write!(out, "<h3>{}</h3><div class=\"multiples\">{}</div>", escape(&stage.stage), figures(&first))
            .expect("a string takes all");
        if !rest.is_empty() {
            write!(
                out,
                "<details class=\"more\"><summary>{}</summary><div class=\"multiples\">{}</div></details>",
                words.more_curves.replace("{}", &rest.len().to_string()),
                figures(&rest)
            )
            .expect("a string takes all");
        }
    }
    let binned = report.curves.iter().flat_map(|s| &s.curves).any(|c| c.points.len() > chart::POINTS);
    let note = if binned { format!("<p class=\"note\">{}</p>", words.binned) } else { String::new() };
    if out.is_empty() { out } else { note + &out }
}

fn calibration(report: &Report, words: &Words) -> String {
    let mut out = String::new();
    for row in &report.stages {
        let Some(calibration) = Report::calibration(row) else { continue };
        let answered = words
            .coverage
            .replace("{coverage}", &percent(calibration.coverage))
            .replace("{target}", &percent(calibration.target_accuracy));
        let threshold = calibration
            .threshold
            .map_or(String::new(), |threshold| format!("; {}", words.threshold.replace("{}", &percent(threshold))));
        let head: String = words.calibration_columns.iter().map(|c| format!("<th scope=\"col\">{c}</th>")).collect();
        let lines: String = calibration.bins.iter().map(|b| {
            format!(
                "<tr><td>{}</td><td>{}</td><td>{}</td><td class=\"bar\"><svg viewBox=\"0 0 100 8\" preserveAspectRatio=\"none\" aria-hidden=\"true\">\
                 <rect class=\"track\" y=\"3.5\" width=\"100\" height=\"1\"/><rect class=\"interval\" y=\"2\" width=\"{:.2}\" height=\"4\"/>\
                 <rect class=\"dot\" x=\"{:.2}\" width=\"1\" height=\"8\"/></svg></td></tr>",
                percent(b.confidence), percent(b.accuracy), count(b.n), 100.0 * b.accuracy, (100.0 * b.confidence).clamp(0.0, 99.0),
            )
        }).collect();
        write!(
            out,
            "<div><h3>{} <small>ECE {}</small></h3><p class=\"note\">{answered}{threshold}</p>\
             <table class=\"plain\"><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>",
            escape(&row.stage),
            percent(calibration.ece),
        )
        .expect("a string takes all");
    }
    if out.is_empty() {
        return out;
    }
    format!("<p class=\"note\">{}</p><div class=\"pair\">{out}</div>", words.calibration_note)
}

/// Numbers of [`StageRow::extra`] without a section of their own; nested ones are named by their paths.
fn further(report: &Report, words: &Words) -> String {
    let mut rows = String::new();
    let baselines = report.baselines.iter().map(|b| (words.baseline(&b.name), &b.extra));
    let all = baselines.chain(report.stages.iter().map(|s| (s.stage.as_str(), &s.extra)));
    for (name, extra) in all {
        let mut leaves = Vec::new();
        extra.iter().filter(|(k, _)| *k != "calibration" && *k != "correct").for_each(|(k, v)| walk(k, v, &mut leaves));
        let cells: String = leaves.iter().map(|(k, v)| format!("<span><i>{}</i> {v}</span> ", escape(k))).collect();
        if !cells.is_empty() {
            write!(rows, "<tr><th scope=\"row\">{}</th><td class=\"loose\">{cells}</td></tr>", escape(name))
                .expect("a string takes all");
        }
    }
    if rows.is_empty() { rows } else { format!("<table class=\"plain\"><tbody>{rows}</tbody></table>") }
}

fn walk(path: &str, value: &Value, leaves: &mut Vec<(String, String)>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(k, v)| walk(&format!("{path} · {k}"), v, leaves)),
        Value::Number(n) => leaves.push((path.to_owned(), n.as_f64().map_or_else(|| n.to_string(), axis))),
        Value::String(s) => leaves.push((path.to_owned(), escape(s))),
        Value::Bool(b) => leaves.push((path.to_owned(), b.to_string())),
        Value::Null | Value::Array(_) => {}
    }
}

/// One line for each finding.
fn notices(all: &[Finding], words: &Words) -> String {
    if all.is_empty() {
        return format!("<p>{}</p>", words.no_notices);
    }
    let head: String = words.notice_columns.iter().map(|c| format!("<th scope=\"col\">{c}</th>")).collect();
    let line = |finding: &Finding| {
        format!(
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td class=\"loose\">{}</td></tr>",
            escape(finding.stage.as_deref().unwrap_or("–")),
            escape(&finding.kind),
            count(finding.count),
            escape(
                &finding
                    .of
                    .and_then(|of| words.finding(&finding.kind, finding.count, of))
                    .unwrap_or_else(|| finding.text.clone())
            )
        )
    };
    let body: String = all.iter().map(line).collect();
    format!("<table class=\"plain\"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
}

fn provenance(report: &Report, words: &Words) -> String {
    let line = |row: &StageRow| {
        let digest = row.digest.as_ref()?;
        Some(format!(
            "<tr><th scope=\"row\">{}</th><td>{}</td><td class=\"loose\"><code>{}</code></td></tr>",
            escape(&row.stage),
            escape(&row.model),
            escape(digest)
        ))
    };
    let body: String = report.stages.iter().filter_map(line).collect();
    if body.is_empty() {
        return body;
    }
    let head: String = words.provenance_columns.iter().map(|c| format!("<th scope=\"col\">{c}</th>")).collect();
    format!("<table class=\"plain\"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
}

fn recipe(report: &Report, words: &Words) -> String {
    if report.recipe.is_empty() {
        return String::new();
    }
    format!("<details><summary>{}</summary><pre>{}</pre></details>", words.recipe, escape(&report.recipe))
}
