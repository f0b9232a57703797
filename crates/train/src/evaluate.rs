//! Evaluates a model on held-out cases: accuracy with its interval, pass@k, maj@k, and how far its confidence can be trusted.
//!
//! With one sample per case, sampling is greedy and the interval is Wilson's. Confidence is then the probability that the model gives its
//! own answer after its reasoning. With `k` samples per case, the temperature is 1 and accuracy is pass@1. Confidence is then the share of
//! votes that the most frequent answer gets. Every interval is a bootstrap over cases, since samples of one case are not independent.
//!
//! Read next: [`crate::stats`], the formulas.

use std::collections::BTreeMap;

use kernels::rng::Key;
use kernels::{Queue, Real};
use lm::Model;
use lm::generate::Sampling;
use lm::tokenizer::Tokenizer;
use serde::Serialize;

use crate::error::TrainError;
use crate::prompting::{Prompting, plain_sampling};
use crate::rollout::{Group, Plan, Rollout, sample};
use crate::stats::{self, CalibrationBin, Interval, majority_is_right, pass_at_k, wilson};
use tasks::{Case, Grade, Task};

/// Bootstrap resamples behind an interval.
const RESAMPLES: usize = 2000;
/// Bins of confidence.
const BINS: usize = 10;
/// The accuracy that answers must have when the least confident ones are left to a person.
const TARGET_ACCURACY: f64 = 0.9;

/// The result of evaluating a model on some cases.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// Share of cases that are right: greedy for `k` = 1, otherwise pass@1, the mean over all samples.
    pub accuracy: f64,
    /// The lower end of its 95 % interval.
    pub low: f64,
    /// The upper end.
    pub high: f64,
    /// Number of cases.
    pub n: usize,
    /// Completions that did not end within `max_new_tokens`.
    pub unfinished: usize,
    /// Mean of each of the task's scores.
    pub parts: BTreeMap<String, f64>,
    /// Chance that at least one of `k` samples is right; none for `k` = 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pass_at_k: Option<f64>,
    /// Its 95 % interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pass_at_k_interval: Option<[f64; 2]>,
    /// Share of cases whose most frequent answer is right (maj@k); none for `k` = 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub majority_at_k: Option<f64>,
    /// Its 95 % interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub majority_at_k_interval: Option<[f64; 2]>,
    /// Samples of each case; 1 is greedy.
    pub k: usize,
    /// How far its confidence can be trusted.
    pub calibration: Calibration,
    /// Whether the first sample of each case is right, in order; for paired comparisons.
    #[serde(skip)]
    pub correct: Vec<bool>,
    /// Tokens of all completions.
    #[serde(skip)]
    pub tokens: usize,
}

/// How a model's confidence compares with its accuracy.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Calibration {
    /// The measure of confidence: `answer_probability`, or `vote_share` of the most frequent of `k` answers.
    pub confidence: &'static str,
    /// Expected calibration error, over ten equal bins.
    pub ece: f64,
    /// The bins that hold a case.
    pub bins: Vec<CalibrationBin>,
    /// The accuracy that is required of the answers that are given.
    pub target_accuracy: f64,
    /// The largest share of cases that can be answered at that accuracy when the least confident ones are left to a person; 0 if none can.
    /// The threshold is chosen on these same cases.
    pub coverage: f64,
    /// The confidence below which to abstain; none if no case can be answered.
    pub threshold: Option<f64>,
}

/// Cases that no completion could be graded on, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ungraded {
    /// How many.
    pub count: usize,
    /// Why the first of them cannot be graded.
    pub reason: String,
}

/// The cases that can be graded. The others are neither right nor wrong, so they count in no accuracy.
pub fn gradable(task: &dyn Task, cases: Vec<Case>) -> (Vec<Case>, Option<Ungraded>) {
    let all = cases.len();
    let mut reason = None;
    let kept = |case: &Case| match task.ungradable(case) {
        None => true,
        Some(why) => {
            reason.get_or_insert(why);
            false
        }
    };
    let graded: Vec<Case> = cases.into_iter().filter(kept).collect();
    let count = all - graded.len();
    (graded, reason.map(|reason| Ungraded { count, reason }))
}

/// Evaluates a model on `cases`: greedily for `k` = 1, otherwise with `k` samples per case at temperature 1.
///
/// # Errors
/// As [`sample`].
///
/// # Panics
/// Without a case.
pub fn evaluate<T: Real>(
    queue: &Queue,
    model: &mut Model<T>,
    prompting: &Prompting,
    task: &dyn Task,
    cases: &[Case],
    k: usize,
    max_new_tokens: usize,
    key: Key,
) -> Result<Evaluation, TrainError> {
    let groups = sample(queue, model, prompting, cases, &plan(k, max_new_tokens, key))?;
    Ok(Evaluation::of(prompting, task, cases, &groups, key))
}

/// The sampling plan of an evaluation: greedy for `k` = 1, otherwise `k` samples at temperature 1.
pub(crate) fn plan(k: usize, max_new_tokens: usize, key: Key) -> Plan {
    let sampling = if k == 1 { Sampling::greedy() } else { plain_sampling(1.0) };
    Plan { samples: k, sampling, max_new_tokens, key }
}

impl Evaluation {
    /// Grades completions of `cases`, one group per case with the same number of completions each.
    pub fn of(prompting: &Prompting, task: &dyn Task, cases: &[Case], groups: &[Group], key: Key) -> Evaluation {
        let grades: Vec<Vec<Grade>> = groups
            .iter()
            .map(|group| group.rollouts.iter().map(|r| task.grade(&cases[group.case], &r.completion())).collect())
            .collect();
        let (n, k) = (grades.len(), grades.first().map_or(1, Vec::len));
        let right: Vec<usize> =
            grades.iter().map(|grades| grades.iter().filter(|grade| grade.correct).count()).collect();
        let key = key.word("bootstrap");
        let over_cases = |of: &dyn Fn(usize) -> f64| {
            let values: Vec<f64> = (0..n).map(of).collect();
            stats::bootstrap_mean(&values, RESAMPLES, key)
        };
        let Interval { value, low, high } = match k {
            1 => wilson(right.iter().sum(), n),
            _ => over_cases(&|case| right[case] as f64 / k as f64),
        };
        let pass = (k > 1).then(|| over_cases(&|case| pass_at_k(k, right[case], k)));
        let majority: Vec<bool> = grades.iter().map(|grades| majority_is_right(&votes(grades))).collect();
        let majority_at_k = (k > 1).then(|| over_cases(&|case| f64::from(u8::from(majority[case]))));
        let judged: Vec<(f64, bool)> = match k {
            1 => groups
                .iter()
                .zip(&right)
                .map(|(g, &right)| (confidence(prompting, &g.rollouts[0]), right == 1))
                .collect(),
            _ => grades
                .iter()
                .zip(&majority)
                .map(|(grades, &right)| (stats::vote_share(&votes(grades)), right))
                .collect(),
        };
        let rollouts = || groups.iter().flat_map(|group| &group.rollouts);
        let ends = |interval: Interval| [interval.low, interval.high];
        Evaluation {
            accuracy: value,
            low,
            high,
            n,
            unfinished: rollouts().filter(|rollout| !rollout.finished).count(),
            parts: mean_parts(grades.iter().flatten()),
            pass_at_k: pass.map(|pass| pass.value),
            pass_at_k_interval: pass.map(ends),
            majority_at_k: majority_at_k.map(|majority| majority.value),
            majority_at_k_interval: majority_at_k.map(ends),
            k,
            calibration: Calibration::of(if k == 1 { "answer_probability" } else { "vote_share" }, &judged),
            correct: grades.iter().map(|grades| grades[0].correct).collect(),
            tokens: rollouts().map(|rollout| rollout.tokens.len()).sum(),
        }
    }
}

impl Calibration {
    fn of(confidence: &'static str, judged: &[(f64, bool)]) -> Calibration {
        let answered = stats::coverage_at(judged, TARGET_ACCURACY);
        Calibration {
            confidence,
            ece: stats::calibration_error(judged, BINS),
            bins: stats::calibration_bins(judged, BINS),
            target_accuracy: TARGET_ACCURACY,
            coverage: answered.map_or(0.0, |(coverage, _)| coverage),
            threshold: answered.map(|(_, threshold)| threshold),
        }
    }
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

fn votes(grades: &[Grade]) -> Vec<(Option<&str>, bool)> {
    grades.iter().map(|grade| (grade.answer_key.as_deref(), grade.correct)).collect()
}

fn confidence(prompting: &Prompting, rollout: &Rollout) -> f64 {
    answer_probability(&prompting.tokenizer, &rollout.tokens, &rollout.logprobs)
}

/// The probability that a model gives its answer after its own reasoning: the product over the tokens after `<answer>`, or over the whole
/// completion if it has no such tag.
pub fn answer_probability(tokenizer: &Tokenizer, tokens: &[u32], logprobs: &[f32]) -> f64 {
    const MARK: &str = "<answer>";
    let whole = tokens.len();
    let start = if tokenizer.decode(tokens, false).contains(MARK) {
        let lengths: Vec<usize> = (0..whole).collect();
        // Whether a prefix of this length contains the mark: false up to some length, then true.
        lengths.partition_point(|&length| !tokenizer.decode(&tokens[..length], false).contains(MARK))
    } else {
        0
    };
    logprobs[start.min(whole)..].iter().map(|&logprob| f64::from(logprob)).sum::<f64>().exp()
}
