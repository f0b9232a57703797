//! Measuring a model on held-out cases: accuracy with its interval, pass@k, maj@k, and how far its confidence can be trusted.
//!
//! With one sample a case it is greedy, the interval is Wilson's, and confidence is the probability that the model gives to its own answer once it
//! has reasoned. With `k` samples at temperature 1, accuracy is pass@1, confidence the share of votes that the most frequent answer gets, and
//! every interval a bootstrap over cases: samples of one case are not independent.

use std::collections::BTreeMap;

use kernels::rng::Key;
use kernels::{Queue, Real};
use lm::Model;
use lm::generate::Sampling;
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
/// What is asked of the answers that are given, where the least sure ones may be left to a person.
const TARGET_ACCURACY: f64 = 0.9;

/// How a model did on some cases.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// Share of cases right: greedy for `k` = 1, otherwise pass@1, the mean over all samples.
    pub accuracy: f64,
    /// The lower end of its 95 % interval.
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
    /// Its 95 % interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pass_at_k_interval: Option<[f64; 2]>,
    /// Share of cases whose most frequent answer is right (maj@k), when `k` > 1 were drawn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub majority_at_k: Option<f64>,
    /// Its 95 % interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub majority_at_k_interval: Option<[f64; 2]>,
    /// Samples a case; 1 is greedy.
    pub k: usize,
    /// How far its confidence can be trusted.
    pub calibration: Calibration,
    /// Each case's headline, in order: for paired comparisons. Greedy, or the first sample's.
    #[serde(skip)]
    pub correct: Vec<bool>,
    /// Completions sampled, and their tokens.
    #[serde(skip)]
    pub tokens: usize,
}

/// Confidence against what came of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Calibration {
    /// What stands for confidence: `answer_probability`, or `vote_share` of the most frequent of `k` answers.
    pub confidence: &'static str,
    /// Expected calibration error, over ten equal bins.
    pub ece: f64,
    /// The bins that hold a case.
    pub bins: Vec<CalibrationBin>,
    /// The accuracy that is asked of the answers that are given.
    pub target_accuracy: f64,
    /// The largest share of cases that can be answered at that accuracy, the least confident ones left to a person; 0 where none can. The threshold
    /// is chosen on these same cases.
    pub coverage: f64,
    /// The confidence below which to abstain; none where nothing can be answered.
    pub threshold: Option<f64>,
}

/// Evaluates on `cases`: greedy for `k` = 1, else `k` samples at temperature 1.
///
/// # Errors
/// As [`sample`].
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

/// How cases are answered for a measurement: greedily for `k` = 1, else `k` times at temperature 1.
pub(crate) fn plan(k: usize, max_new_tokens: usize, key: Key) -> Plan {
    let sampling = if k == 1 { Sampling::greedy() } else { plain_sampling(1.0) };
    Plan { samples: k, sampling, max_new_tokens, key }
}

impl Evaluation {
    /// What completions of `cases`, one group each, amount to.
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

/// The probability of the answer given the reasoning before it: of all tokens after `<answer>`, or of the whole completion without one.
fn confidence(prompting: &Prompting, rollout: &Rollout) -> f64 {
    const MARK: &str = "<answer>";
    let whole = rollout.tokens.len();
    let start = if rollout.text.contains(MARK) {
        let lengths: Vec<usize> = (0..whole).collect();
        // Whether the mark has been written by then: false, then true for ever.
        lengths.partition_point(|&length| !prompting.tokenizer.decode(&rollout.tokens[..length], false).contains(MARK))
    } else {
        0
    };
    rollout.logprobs[start.min(whole)..].iter().map(|&logprob| f64::from(logprob)).sum::<f64>().exp()
}
