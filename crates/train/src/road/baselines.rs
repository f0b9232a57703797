//! Cheap baselines under every ladder: the constant answer, and a linear model over characters.
//!
//! Both see the same demonstrations' answers as fine-tuning may, and are graded by the same strict grader on the same held-out cases. A ladder
//! whose models do not beat them has learned nothing worth its compute.

use std::time::Instant;

use store::{BaselineRow, Run};

use super::Heldout;
use crate::baselines::{NgramModel, NgramSettings, commonest};
use crate::error::TrainError;
use crate::recipe::Recipe;
use crate::stats::wilson;
use crate::tasks::{Case, Completion, Split, Task};

/// Measures the baselines and records them.
///
/// # Errors
/// The task's or the ledger's.
pub(super) fn record(recipe: &Recipe, task: &dyn Task, heldout: &Heldout, run: &Run) -> Result<(), TrainError> {
    let cases = task.cases(Split::Train, recipe.eval.baseline_demonstrations, recipe.seed)?;
    let answered = |case: &Case| Some((case.prompt_text(), task.bare_answer(case)?));
    let pairs: Vec<(String, String)> = cases.iter().filter_map(answered).collect();
    if pairs.is_empty() {
        return Ok(());
    }
    let began = Instant::now();
    if let Some(answer) = commonest(pairs.iter().map(|(_, answer)| answer.as_str())) {
        let right = right(task, &heldout.cases, |_| answer);
        run.ledger().record_baseline(&row("constant answer", &right, pairs.len(), began))?;
    }
    let began = Instant::now();
    let borrowed: Vec<(&str, &str)> = pairs.iter().map(|(text, label)| (text.as_str(), label.as_str())).collect();
    let model = NgramModel::train(&borrowed, NgramSettings::default());
    let right = right(task, &heldout.cases, |case| model.predict(&case.prompt_text()));
    run.ledger().record_baseline(&row("character n-grams, linear", &right, pairs.len(), began))?;
    Ok(())
}

fn right<'a>(task: &dyn Task, cases: &[Case], answer: impl Fn(&Case) -> &'a str) -> Vec<bool> {
    cases.iter().map(|case| task.grade(case, &Completion::finished(answer(case))).correct).collect()
}

fn row(name: &str, right: &[bool], labels: usize, began: Instant) -> BaselineRow {
    let (count, n) = (right.iter().filter(|&&right| right).count(), right.len());
    let interval = wilson(count, n);
    let correct: String = right.iter().map(|&right| if right { '1' } else { '0' }).collect();
    let mut extra = serde_json::Map::new();
    extra.insert("correct".into(), correct.into());
    BaselineRow {
        name: name.into(),
        accuracy: count as f64 / n.max(1) as f64,
        low: interval.low,
        high: interval.high,
        n: n as u64,
        labels: labels as u64,
        answers_read: 0,
        seconds: began.elapsed().as_secs_f64(),
        extra,
    }
}
