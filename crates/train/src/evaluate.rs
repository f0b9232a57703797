//! Measuring a model on held-out cases.

use std::collections::BTreeMap;

use kernels::{Queue, Real};
use lm::Model;
use lm::generate::Sampling;
use lm::rng::Key;
use serde::Serialize;

use crate::codec::{Codec, plain_sampling};
use crate::error::TrainError;
use crate::rollout::{Plan, sample};
use crate::stats::{majority_is_right, pass_at_k, wilson};
use crate::tasks::{Case, Grade, Task};

/// How a model did on some cases.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// Share of cases right: greedy, or pass@1 when sampled.
    pub accuracy: f64,
    /// The lower end of its 95 % Wilson interval.
    pub low: f64,
    /// The upper end.
    pub high: f64,
    /// Cases.
    pub n: usize,
    /// Completions that never ended.
    pub unfinished: usize,
    /// Mean of each of the task's scores.
    pub parts: BTreeMap<String, f64>,
    /// Chance that one of `k` samples is right, when `k` > 1 were drawn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pass_at_k: Option<f64>,
    /// Share of cases whose most frequent answer is right, when `k` > 1 were drawn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub majority_at_k: Option<f64>,
    /// Samples a case; 1 is greedy.
    pub k: usize,
    /// Each case's headline, in order: for paired comparisons.
    #[serde(skip)]
    pub correct: Vec<bool>,
    /// Completions sampled, and their tokens.
    #[serde(skip)]
    pub tokens: usize,
}

/// Evaluates on `cases`: greedy for `k` = 1, else `k` samples at temperature 1.
///
/// # Errors
/// As [`sample`].
pub fn evaluate<T: Real>(
    queue: &Queue,
    model: &mut Model<T>,
    codec: &Codec,
    task: &dyn Task,
    cases: &[Case],
    k: usize,
    max_new_tokens: usize,
    key: Key,
) -> Result<Evaluation, TrainError> {
    let sampling = if k == 1 { Sampling::greedy() } else { plain_sampling(1.0) };
    let plan = Plan { samples: k, sampling, max_new_tokens, key };
    let groups = sample(queue, model, codec, cases, &plan)?;
    let grades: Vec<Vec<Grade>> = groups
        .iter()
        .map(|group| group.rollouts.iter().map(|r| task.grade(&cases[group.case], &r.completion())).collect())
        .collect();
    let n = grades.len();
    let right: Vec<usize> = grades.iter().map(|grades| grades.iter().filter(|grade| grade.correct).count()).collect();
    let first: Vec<bool> = grades.iter().map(|grades| grades[0].correct).collect();
    let headline =
        if k == 1 { right.iter().sum::<usize>() as f64 } else { right.iter().sum::<usize>() as f64 / k as f64 };
    let interval = wilson(headline.round() as usize, n);
    let share = |sum: f64| sum / n.max(1) as f64;
    let rollouts = || groups.iter().flat_map(|group| &group.rollouts);
    Ok(Evaluation {
        accuracy: share(headline),
        low: interval.low,
        high: interval.high,
        n,
        unfinished: rollouts().filter(|rollout| !rollout.finished).count(),
        parts: mean_parts(grades.iter().flatten()),
        pass_at_k: (k > 1).then(|| share(right.iter().map(|&right| pass_at_k(k, right, k)).sum())),
        majority_at_k: (k > 1).then(|| share(grades.iter().filter(|grades| majority(grades)).count() as f64)),
        k,
        correct: first,
        tokens: rollouts().map(|rollout| rollout.tokens.len()).sum(),
    })
}

/// The mean of each named score, over the grades that have it.
pub(crate) fn mean_parts<'a>(grades: impl IntoIterator<Item = &'a Grade>) -> BTreeMap<String, f64> {
    let mut parts: BTreeMap<String, f64> = BTreeMap::new();
    let mut counts: BTreeMap<String, f64> = BTreeMap::new();
    for (name, value) in grades.into_iter().flat_map(|grade| &grade.parts) {
        *parts.entry(name.clone()).or_default() += value;
        *counts.entry(name.clone()).or_default() += 1.0;
    }
    parts.iter_mut().for_each(|(name, sum)| *sum /= counts[name]);
    parts
}

fn majority(grades: &[Grade]) -> bool {
    let votes: Vec<(Option<&str>, bool)> =
        grades.iter().map(|grade| (grade.answer_key.as_deref(), grade.correct)).collect();
    majority_is_right(&votes)
}
