//! The ladder: the accuracy and the cost of each stage, with the baselines at the top.
//!
//! Accuracy is drawn with its interval on one scale for all rows, from 0 to 100 %. Beside it is the difference from the
//! previous row of the same model. It is marked if its paired interval holds zero, because the two rows then cannot be
//! told apart.
//!
//! Read next: [`super::page`].

use maud::{Markup, html};
use store::{BaselineRow, StageRow};

use super::data::Report;
use super::figures::{count, duration, large, money, percent};
use super::paired::{Difference, difference};
use super::words::Words;

/// The whole table.
pub fn table(report: &Report, words: &Words) -> Markup {
    let rows = report.stages.iter().enumerate().map(|(i, row)| {
        let change = difference(&report.stages, i).map(|difference| change(&difference, words));
        stage_row(row, change)
    });
    html! {
        div.wide {
            table.ladder {
                (head(&words.columns))
                tbody {
                    @for baseline in &report.baselines { (baseline_row(baseline, words)) }
                    @for row in rows { (row) }
                }
                (total(report, words))
            }
        }
    }
}

/// The head of any table of the page.
pub fn head(columns: &[&str]) -> Markup {
    html! { thead { tr { @for column in columns { th scope="col" { (column) } } } } }
}

fn baseline_row(b: &BaselineRow, words: &Words) -> Markup {
    html! {
        tr.baseline {
            th scope="row" { bdi { (words.baseline(&b.name)) } }
            td { (accuracy(Some(b.accuracy), Some(b.low), Some(b.high), b.n, None)) }
            td {} td { (count(b.labels)) } td { (count(b.answers_read)) } td {} td {} td {} td {}
            td { @if b.seconds == 0.0 { "–" } @else { (duration(b.seconds)) } } td {}
        }
    }
}

fn stage_row(s: &StageRow, change: Option<Markup>) -> Markup {
    let figures = [
        count(s.labels),
        count(s.answers_read),
        count(s.rollouts),
        large(s.teacher_tokens as f64),
        large(s.train_tokens as f64),
        large(s.flops),
        duration(s.seconds),
        money(s.cost),
    ];
    html! {
        tr {
            th scope="row" { bdi { (s.stage) } @if s.kind != s.stage { " " small { bdi { (s.kind) } } } }
            td { (accuracy(s.accuracy, s.low, s.high, s.n, change)) }
            td { bdi { (s.model) } }
            @for figure in figures { td { (figure) } }
        }
    }
}

/// The difference from the previous row of the same model, marked if it is within the noise.
fn change(difference: &Difference, words: &Words) -> Markup {
    let Difference { from, value, low, high, within_noise } = difference;
    let told = words.change.replace("{}", from);
    let interval = format!("{:+.1} [{:+.1}, {:+.1}]", 100.0 * value, 100.0 * low, 100.0 * high);
    let (class, mark, noise) = match within_noise {
        true => ("noise", "≈ ", format!(" · {}", words.within_noise)),
        false => ("told", "", String::new()),
    };
    html! {
        abbr class=(class) title={ (told) ": " (interval) (noise) } { (mark) (format_args!("{:+.1}", 100.0 * value)) }
    }
}

/// The accuracy as a number, and as a dot with its interval.
fn accuracy(value: Option<f64>, low: Option<f64>, high: Option<f64>, n: u64, change: Option<Markup>) -> Markup {
    let Some(value) = value else { return html! { span.none { "–" } } };
    let (low, high) = (low.unwrap_or(value), high.unwrap_or(value));
    let told = format!("{} [{}, {}]", percent(value), percent(low), percent(high));
    let (x, from, width) = (100.0 * value, 100.0 * low, 100.0 * (high - low));
    html! {
        span.acc {
            b { (percent(value)) } " "
            small { "± " (percent((high - low) / 2.0)) }
            small { (change.unwrap_or_default()) }
            svg viewBox="0 0 100 8" preserveAspectRatio="none" role="img" aria-label={ (told) " n = " (n) } {
                title { (told) " · n = " (n) }
                rect.track y="3.5" width="100" height="1" {}
                rect.interval x=(format_args!("{from:.2}")) y="2" width=(format_args!("{width:.2}")) height="4" {}
                rect.dot x=(format_args!("{:.2}", (x - 0.7).clamp(0.0, 98.6))) y="0" width="1.4" height="8" {}
            }
        }
    }
}

/// The sums of the columns that add up. Labels and answers are distinct cases and do not add up.
fn total(report: &Report, words: &Words) -> Markup {
    let sum = |get: fn(&StageRow) -> f64| report.stages.iter().map(get).sum::<f64>();
    let costs: Vec<f64> = report.stages.iter().filter_map(|s| s.cost).collect();
    let figures = [
        large(sum(|s| s.rollouts as f64)),
        large(sum(|s| s.teacher_tokens as f64)),
        large(sum(|s| s.train_tokens as f64)),
        large(sum(|s| s.flops)),
        duration(sum(|s| s.seconds)),
        money((!costs.is_empty()).then(|| costs.iter().sum())),
    ];
    html! {
        tfoot {
            tr {
                th scope="row" { (words.total) }
                td {} td {} td {} td {}
                @for figure in figures { td { (figure) } }
            }
        }
    }
}
