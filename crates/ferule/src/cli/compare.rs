//! `ferule compare FIRST SECOND --run RUN…`: the difference between two rows of the ladder, paired case by case and
//! pooled over the seeds of several runs.
//!
//! A difference *appears* when every run agrees in its sign and the pooled interval does not include zero; otherwise it is within
//! the noise. Rows that did not answer the same cases are refused. Beside the accuracies stand the labels and answers behind
//! each row's model, and the teacher tokens and operations of its own stage, without the stages before it.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde::Serialize;
use store::{RunView, Runs};
use train::stats::{Interval, paired_bootstrap};

use super::output::Output;
use crate::outcome::failure;
use crate::report::paired::{self, RESAMPLES};

/// What `ferule compare` reads.
#[derive(clap::Args)]
pub struct Arguments {
    /// A row of the ladder: a stage's name or a baseline's
    first: String,
    /// The row that is compared with it
    second: String,
    /// A run; repeat --run for several seeds
    #[arg(long = "run", value_name = "RUN", required = true)]
    names: Vec<String>,
    /// Folder of all runs
    #[arg(long, default_value = "runs")]
    runs: PathBuf,
    /// Write the comparison as JSON
    #[arg(long)]
    json: bool,
}

/// The comparison in one run; shares, not percent.
#[derive(Serialize)]
struct Paired {
    run: String,
    seed: Option<i64>,
    n: usize,
    first: f64,
    second: f64,
    difference: f64,
    low: f64,
    high: f64,
    first_spent: Spent,
    second_spent: Spent,
}

/// Labels and answers behind a row's model; teacher tokens and operations of its own stage.
#[derive(Clone, Copy, Default, Serialize)]
struct Spent {
    labels: u64,
    answers_read: u64,
    teacher_tokens: u64,
    flops: f64,
}

/// A row of the ladder: whether each case is right, and what its stage used.
struct Row {
    right: Vec<f64>,
    spent: Spent,
}

/// The comparison over all runs.
#[derive(Serialize)]
struct Comparison {
    first: String,
    second: String,
    runs: Vec<Paired>,
    difference: f64,
    low: f64,
    high: f64,
    appears: bool,
}

/// Runs the command.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let runs = Runs::open(&arguments.runs);
    let key = paired::key();
    let (mut strata, mut rows) = (Vec::new(), Vec::new());
    for name in &arguments.names {
        let view = runs.view(name)?;
        let (first, second) = (row(&view, &arguments.first)?, row(&view, &arguments.second)?);
        let pairs = pairs(&view, &first, &second)?;
        let mean = |of: fn(&(f64, f64)) -> f64| pairs.iter().map(of).sum::<f64>() / pairs.len() as f64;
        let Interval { value, low, high } = paired_bootstrap(std::slice::from_ref(&pairs), RESAMPLES, key);
        rows.push(Paired {
            run: name.clone(),
            seed: crate::report::data::seed_of(&view.recipe()?),
            n: pairs.len(),
            first: mean(|pair| pair.0),
            second: mean(|pair| pair.1),
            difference: value,
            low,
            high,
            first_spent: first.spent,
            second_spent: second.spent,
        });
        strata.push(pairs);
    }
    let pooled = paired_bootstrap(&strata, RESAMPLES, key);
    let same_sign = rows.iter().all(|row| row.difference * pooled.value > 0.0);
    let comparison = Comparison {
        first: arguments.first,
        second: arguments.second,
        runs: rows,
        difference: pooled.value,
        low: pooled.low,
        high: pooled.high,
        appears: same_sign && !pooled.holds_zero(),
    };
    let mut output = Output::stdout();
    if arguments.json {
        output.json_line(&comparison)?;
    } else {
        output.text(&text(&comparison))?;
    }
    output.flush()
}

/// Each case's score in both rows: 1 for right, 0 for wrong.
fn pairs(view: &RunView, first: &Row, second: &Row) -> anyhow::Result<Vec<(f64, f64)>> {
    let (a, b) = (&first.right, &second.right);
    if a.len() != b.len() || a.is_empty() {
        let problem = format!("run {}: the first row answered {} cases, the second {}", view.name(), a.len(), b.len());
        return Err(failure(problem, "compare rows of one ladder that answered the same cases"));
    }
    Ok(a.iter().copied().zip(b.iter().copied()).collect())
}

fn row(view: &RunView, name: &str) -> anyhow::Result<Row> {
    let (stages, baselines) = (view.ledger().stages()?, view.ledger().baselines()?);
    let stage = stages.iter().find(|stage| stage.stage == name);
    let baseline = baselines.iter().find(|baseline| baseline.name == name);
    let (extra, spent) = match (stage, baseline) {
        (Some(stage), _) => (
            &stage.extra,
            Spent {
                labels: stage.labels,
                answers_read: stage.answers_read,
                teacher_tokens: stage.teacher_tokens,
                flops: stage.flops,
            },
        ),
        (None, Some(baseline)) => (&baseline.extra, Spent { labels: baseline.labels, ..Spent::default() }),
        (None, None) => {
            let stages = stages.iter().map(|stage| stage.stage.as_str());
            let names: Vec<&str> = stages.chain(baselines.iter().map(|baseline| baseline.name.as_str())).collect();
            let problem = format!("run {} has no row \"{name}\"", view.name());
            return Err(failure(problem, format!("its rows are {}", names.join(", "))));
        }
    };
    Ok(Row { right: paired::correct(extra), spent })
}

fn text(comparison: &Comparison) -> String {
    let percent = |share: f64| 100.0 * share;
    let mut text = format!("{} → {}, accuracy in %\n", comparison.first, comparison.second);
    for row in &comparison.runs {
        let seed = row.seed.map(|seed| format!(", seed {seed}")).unwrap_or_default();
        let _ = writeln!(
            text,
            "{:24} {:5.1} → {:5.1}  {:+5.1} ({:+.1} to {:+.1}; n {}{seed})",
            row.run,
            percent(row.first),
            percent(row.second),
            percent(row.difference),
            percent(row.low),
            percent(row.high),
            row.n
        );
    }
    let word = if comparison.appears { "appears" } else { "within the noise, or the seeds disagree" };
    let (difference, low, high) = (comparison.difference, comparison.low, comparison.high);
    let _ = writeln!(
        text,
        "{:24}                {:+5.1} ({:+.1} to {:+.1}): {word}",
        "pooled",
        percent(difference),
        percent(low),
        percent(high)
    );
    for row in &comparison.runs {
        let (first, second) = (row.first_spent, row.second_spent);
        let _ = writeln!(
            text,
            "{:24} labels {} → {}, answers read {} → {}, teacher tokens {} → {}, FLOPs {:.2e} → {:.2e}",
            row.run,
            first.labels,
            second.labels,
            first.answers_read,
            second.answers_read,
            first.teacher_tokens,
            second.teacher_tokens,
            first.flops,
            second.flops
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_follow_the_interval_and_the_signs() {
        let row = |difference: f64| Paired {
            run: "a".into(),
            seed: Some(1),
            n: 10,
            first: 0.5,
            second: 0.5 + difference,
            difference,
            low: difference - 0.1,
            high: difference + 0.1,
            first_spent: Spent { labels: 60, flops: 1e12, ..Spent::default() },
            second_spent: Spent { answers_read: 400, flops: 2.5e12, ..Spent::default() },
        };
        let comparison = |appears: bool| Comparison {
            first: "sft".into(),
            second: "grpo".into(),
            runs: vec![row(0.25)],
            difference: 0.25,
            low: 0.15,
            high: 0.35,
            appears,
        };
        let shown = text(&comparison(true));
        assert!(
            shown.contains("a                         50.0 →  75.0  +25.0 (+15.0 to +35.0; n 10, seed 1)"),
            "{shown}"
        );
        assert!(shown.contains("+25.0 (+15.0 to +35.0): appears\n"), "{shown}");
        let spent = "labels 60 → 0, answers read 0 → 400, teacher tokens 0 → 0, FLOPs 1.00e12 → 2.50e12\n";
        assert!(shown.ends_with(spent), "{shown}");
        assert!(text(&comparison(false)).contains(": within the noise, or the seeds disagree\n"));
    }
}
