//! The ladder: the accuracy and the cost of each stage, with the baselines at the top.
//!
//! Accuracy is drawn with its interval on one scale for all rows, from 0 to 100 %. Beside it is the difference from the
//! previous row of the same model. It is marked if its paired interval holds zero, because the two rows then cannot be
//! told apart.
//!
//! Read next: [`super::page`].

use std::fmt::Write;

use store::StageRow;

use super::data::Report;
use super::figures::{count, duration, escape, large, money, percent};
use super::paired::{Difference, difference};
use super::words::Words;

/// The whole table.
pub fn table(report: &Report, words: &Words) -> String {
    let mut rows = String::new();
    for b in &report.baselines {
        write!(
            rows,
            "<tr class=\"baseline\"><th scope=\"row\">{}</th><td>{}</td><td></td><td>{}</td><td>{}</td>\
             <td></td><td></td><td></td><td></td><td>{}</td><td></td></tr>",
            escape(words.baseline(&b.name)),
            accuracy(Some(b.accuracy), Some(b.low), Some(b.high), b.n, None),
            count(b.labels),
            count(b.answers_read),
            if b.seconds == 0.0 { "–".to_owned() } else { duration(b.seconds) },
        )
        .expect("a string takes all");
    }
    for (i, s) in report.stages.iter().enumerate() {
        write!(rows, "{}", stage_row(s, difference(&report.stages, i).as_ref(), words)).expect("a string takes all");
    }
    let head: String = words.columns.iter().map(|c| format!("<th scope=\"col\">{c}</th>")).collect();
    format!(
        "<div class=\"wide\"><table class=\"ladder\"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody>{}</table></div>",
        total(report, words)
    )
}

fn stage_row(s: &StageRow, difference: Option<&Difference>, words: &Words) -> String {
    let kind = if s.kind == s.stage { String::new() } else { format!(" <small>{}</small>", escape(&s.kind)) };
    let cost = money(s.cost);
    format!(
        "<tr><th scope=\"row\">{}{kind}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
         <td>{}</td><td>{}</td><td>{cost}</td></tr>",
        escape(&s.stage),
        accuracy(s.accuracy, s.low, s.high, s.n, difference.map(|d| change(d, words))),
        escape(&s.model),
        count(s.labels),
        count(s.answers_read),
        count(s.rollouts),
        large(s.teacher_tokens as f64),
        large(s.train_tokens as f64),
        large(s.flops),
        duration(s.seconds),
    )
}

/// The difference from the previous row of the same model, marked if it is within the noise.
fn change(difference: &Difference, words: &Words) -> String {
    let Difference { from, value, low, high, within_noise } = difference;
    let told = words.change.replace("{}", &escape(from));
    let interval = format!("{:+.1} [{:+.1}, {:+.1}]", 100.0 * value, 100.0 * low, 100.0 * high);
    let (class, mark, noise) = match within_noise {
        true => ("noise", "≈ ", format!(" · {}", words.within_noise)),
        false => ("told", "", String::new()),
    };
    format!("<abbr class=\"{class}\" title=\"{told}: {interval}{noise}\">{mark}{:+.1}</abbr>", 100.0 * value)
}

/// The accuracy as a number, and as a dot with its interval.
fn accuracy(value: Option<f64>, low: Option<f64>, high: Option<f64>, n: u64, change: Option<String>) -> String {
    let Some(value) = value else { return "<span class=\"none\">–</span>".to_owned() };
    let (low, high) = (low.unwrap_or(value), high.unwrap_or(value));
    let half = (high - low) / 2.0;
    let change = change.unwrap_or_default();
    let (x, from, width) = (100.0 * value, 100.0 * low, 100.0 * (high - low));
    format!(
        "<span class=\"acc\"><b>{}</b> <small>± {}</small><small>{change}</small>\
         <svg viewBox=\"0 0 100 8\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{} [{}, {}] n = {n}\">\
         <title>{} [{}, {}] · n = {n}</title>\
         <rect class=\"track\" y=\"3.5\" width=\"100\" height=\"1\"/>\
         <rect class=\"interval\" x=\"{from:.2}\" y=\"2\" width=\"{width:.2}\" height=\"4\"/>\
         <rect class=\"dot\" x=\"{:.2}\" y=\"0\" width=\"1.4\" height=\"8\"/></svg></span>",
        percent(value),
        percent(half),
        percent(value),
        percent(low),
        percent(high),
        percent(value),
        percent(low),
        percent(high),
        (x - 0.7).clamp(0.0, 98.6),
    )
}

/// The sums of the columns that add up. Labels and answers are distinct cases and do not add up.
fn total(report: &Report, words: &Words) -> String {
    let sum = |get: fn(&StageRow) -> f64| report.stages.iter().map(get).sum::<f64>();
    let costs: Vec<f64> = report.stages.iter().filter_map(|s| s.cost).collect();
    format!(
        "<tfoot><tr><th scope=\"row\">{}</th><td></td><td></td><td></td><td></td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
         <td>{}</td><td>{}</td></tr></tfoot>",
        words.total,
        large(sum(|s| s.rollouts as f64)),
        large(sum(|s| s.teacher_tokens as f64)),
        large(sum(|s| s.train_tokens as f64)),
        large(sum(|s| s.flops)),
        duration(sum(|s| s.seconds)),
        money((!costs.is_empty()).then(|| costs.iter().sum())),
    )
}
