//! Cheap baselines under every ladder: the constant answer, a linear model over characters, and the nearest cases' answer.
//!
//! All see the same demonstrations' answers as fine-tuning may, and are graded by the same strict grader on the same held-out cases. A ladder
//! whose models do not beat them has learned nothing worth its compute.

use std::time::Instant;

use serde_json::json;
use store::{BaselineRow, Run};

use super::Heldout;
use crate::baselines::{Neighbours, NgramModel, NgramSettings, commonest};
use crate::error::TrainError;
use crate::evaluate::mean_parts;
use crate::recipe::Recipe;
use crate::stats::wilson;
use crate::tasks::{Case, Completion, Grade, Task, first_written};

/// Neighbours that vote.
const NEIGHBOURS: usize = 5;
/// Their longest n-gram, in characters.
const NEIGHBOUR_NGRAM: usize = 3;

/// Measures the baselines and records them.
///
/// # Errors
/// The task's or the ledger's.
pub(super) fn record(recipe: &Recipe, task: &dyn Task, heldout: &Heldout, run: &Run) -> Result<(), TrainError> {
    let labels = recipe.eval.baseline_demonstrations;
    let demonstrated = first_written(task, labels, recipe.seed, |case| task.bare_answer(case))?;
    if demonstrated.is_empty() {
        return Ok(());
    }
    let texts: Vec<String> = demonstrated.iter().map(|(case, _)| case.prompt_text()).collect();
    let pairs: Vec<(&str, &str)> =
        texts.iter().map(String::as_str).zip(demonstrated.iter().map(|(_, answer)| answer.as_str())).collect();
    let record = |name: &str, grades: Vec<Grade>, began: Instant| {
        Ok(run.ledger().record_baseline(&row(name, &grades, pairs.len(), began))?)
    };
    let began = Instant::now();
    if let Some(answer) = commonest(pairs.iter().map(|(_, answer)| *answer)) {
        record("constant answer", grades(task, &heldout.cases, |_| answer), began)?;
    }
    let began = Instant::now();
    let model = NgramModel::train(&pairs, NgramSettings::default());
    let graded = grades(task, &heldout.cases, |case| model.predict(&case.prompt_text()));
    record("character n-grams, linear", graded, began)?;
    let began = Instant::now();
    let texts: Vec<&str> = pairs.iter().map(|(text, _)| *text).collect();
    let neighbours = Neighbours::of(&texts, NEIGHBOUR_NGRAM);
    let graded = grades(task, &heldout.cases, |case| {
        voted(task, &demonstrated, &neighbours.nearest(&case.prompt_text(), NEIGHBOURS))
    });
    record("character TF-IDF, 5 nearest", graded, began)
}

/// Of the neighbours' answers, the one that is right for most of them, by the task's own grading and weighted by nearness; the nearest
/// of equals. Answers as wholes seldom repeat, so that counting equal ones would elect the nearest.
fn voted<'a>(task: &dyn Task, demonstrated: &'a [(Case, String)], near: &[(usize, f32)]) -> &'a str {
    let support = |answer: &str| {
        let right = |index: usize| task.grade(&demonstrated[index].0, &Completion::finished(answer)).correct;
        near.iter().filter(|(index, _)| right(*index)).map(|(_, cosine)| cosine).sum::<f32>()
    };
    let answers = near.iter().map(|(index, _)| demonstrated[*index].1.as_str());
    // `max_by` takes the last of equals: the nearest comes last.
    let supported = answers.rev().map(|answer| (support(answer), answer)).max_by(|a, b| a.0.total_cmp(&b.0));
    supported.map_or("", |(_, answer)| answer)
}

fn grades<'a>(task: &dyn Task, cases: &[Case], answer: impl Fn(&Case) -> &'a str) -> Vec<Grade> {
    cases.iter().map(|case| task.grade(case, &Completion::finished(answer(case)))).collect()
}

fn row(name: &str, grades: &[Grade], labels: usize, began: Instant) -> BaselineRow {
    let (count, n) = (grades.iter().filter(|grade| grade.correct).count(), grades.len());
    let interval = wilson(count, n);
    let correct: String = grades.iter().map(|grade| if grade.correct { '1' } else { '0' }).collect();
    let mut extra = serde_json::Map::new();
    extra.insert("correct".into(), correct.into());
    extra.insert("parts".into(), json!(mean_parts(grades)));
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
