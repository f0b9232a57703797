//! The clipped policy gradient: from log-probabilities and advantages to one coefficient per token.
//!
//! A coefficient is `d loss / d logprob` of the policy at a sampled token. The head turns coefficients into gradients
//! and never sees an advantage. GRPO, DAPO, Dr. GRPO, GSPO and RLOO differ in the ratio, the clipping and the weights
//! of tokens. The first two are fields of [`PolicyLoss`]; [`Aggregate`] gives the third:
//!
//! | | ratio | a token's weight |
//! |---|---|---|
//! | GRPO (arXiv 2402.03300) | token | 1 / (completions · tokens of its completion) |
//! | DAPO (arXiv 2503.14476) | token, `epsilon_high` > `epsilon_low` | 1 / tokens of all completions |
//! | Dr. GRPO (arXiv 2503.20783) | token | 1 / (completions · `max_new_tokens`) |
//! | GSPO (arXiv 2507.18071) | sequence | as GRPO |
//! | RLOO (arXiv 2402.14740) | sequence product | as GRPO |
//!
//! Where policy and sampler agree bit for bit, as in the first update on a batch, every ratio is exactly 1.
//!
//! Checked against TRL's losses and gradients (`tests/policy_losses.rs`).

use std::ops::Range;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::step::{RowLoss, RowReport};

/// What the ratio of policy to sampler is taken over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ratio {
    /// Each token by itself.
    #[default]
    Token,
    /// The geometric mean over the completion (GSPO).
    Sequence,
    /// The product over the completion (RLOO).
    SequenceProduct,
}

/// How token losses make one number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Aggregate {
    /// Mean over a completion's tokens, then over completions.
    #[default]
    Grpo,
    /// Mean over all tokens.
    Dapo,
    /// Sum over tokens, divided by the number of completions times `max_new_tokens`.
    DrGrpo,
}

impl Aggregate {
    /// The weight of each token of a completion.
    ///
    /// # Shapes and units
    /// * `lengths`: `[B]` trained tokens of every completion of the step; 0 for one that is masked.
    /// * returns `[B]`, dimensionless.
    pub fn token_weights(self, lengths: &[usize], max_new_tokens: usize) -> Vec<f32> {
        let completions = lengths.len() as f64;
        let total: usize = lengths.iter().sum();
        let weight = |&length: &usize| match self {
            Aggregate::Grpo => 1.0 / (completions * length.max(1) as f64),
            Aggregate::Dapo => 1.0 / total.max(1) as f64,
            Aggregate::DrGrpo => 1.0 / (completions * max_new_tokens as f64),
        };
        lengths.iter().map(|length| weight(length) as f32).collect()
    }
}

/// The choices in which the algorithms differ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PolicyLoss {
    /// What the ratio is taken over.
    pub ratio: Ratio,
    /// The ratio is clipped below at `1 − epsilon_low`.
    pub epsilon_low: f32,
    /// The ratio is clipped above at `1 + epsilon_high`.
    pub epsilon_high: f32,
    /// A cap on the ratio whatever the advantage's sign (arXiv 2505.07291); none by default.
    pub ratio_cap: Option<f32>,
    /// Weight of the divergence from the reference, by the k3 estimator (Schulman 2020).
    pub kl_coefficient: f32,
}

impl Default for PolicyLoss {
    fn default() -> Self {
        Self { ratio: Ratio::Token, epsilon_low: 0.2, epsilon_high: 0.2, ratio_cap: None, kl_coefficient: 0.0 }
    }
}

/// The sampled tokens of one step, one completion after the other. Every list except `completions` is `[R]`.
#[derive(Clone, Debug, Default)]
pub struct PolicyTokens {
    /// The rows of each completion.
    pub completions: Vec<Range<usize>>,
    /// Log-probability under the sampler, in nats.
    pub logprobs_sampler: Vec<f32>,
    /// Log-probability under the reference, in nats; needed if `kl_coefficient` is not 0.
    pub logprobs_reference: Option<Vec<f32>>,
    /// Advantage. It is the same for every token of a completion unless tokens have rewards of their own.
    pub advantage: Vec<f32>,
    /// Weight in the loss.
    pub weight: Vec<f32>,
}

/// What the loss reports about some rows. Every value is a sum with the rows' weights.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PolicyReport {
    /// The loss.
    pub loss: f64,
    /// Weight of the tokens whose ratio was clipped.
    pub clipped: f64,
    /// k3 against the reference, in nats.
    pub kl: f64,
}

/// The policy gradient of a batch, as a signal.
#[derive(Clone, Debug)]
pub struct PolicySignal {
    /// The choices that make the algorithm.
    pub loss: PolicyLoss,
    /// The sampled tokens' rows, in the batch's order.
    pub tokens: PolicyTokens,
    /// `[N]`, whether a token is one of them.
    pub sampled: Vec<bool>,
    /// Whether the sampler has the same weights as the policy. Its log-probabilities are then the policy's, bit for
    /// bit.
    pub on_policy: bool,
}

impl RowLoss for PolicySignal {
    fn trained(&self) -> &[bool] {
        &self.sampled
    }

    fn known(&self) -> Option<&[f32]> {
        self.on_policy.then_some(&self.tokens.logprobs_sampler)
    }

    fn coefficients(&self, logprobs: &[f32]) -> (Vec<f32>, RowReport) {
        let (coefficients, report) = coefficients(&self.loss, &self.tokens, logprobs);
        (coefficients, RowReport { loss: report.loss, figures: vec![("clipped", report.clipped), ("kl", report.kl)] })
    }
}

/// The coefficient of every row.
///
/// # Shapes and units
/// * `logprobs_policy`: `[R]`, nats, in the order of `tokens`.
/// * returns `[R]` of `d loss / d logprob`, and the report.
///
/// # Panics
/// When the lists differ in length, or when `kl_coefficient` is not 0 and the log-probabilities of the reference are
/// missing.
///
/// # Source
/// Schulman et al. 2017 (the clipped objective), arXiv 1707.06347, equation 7; the other sources are in the module's
/// table.
pub fn coefficients(loss: &PolicyLoss, tokens: &PolicyTokens, logprobs_policy: &[f32]) -> (Vec<f32>, PolicyReport) {
    let rows = logprobs_policy.len();
    assert_eq!(rows, tokens.logprobs_sampler.len(), "policy and sampler log-probabilities");
    assert_eq!((rows, rows), (tokens.advantage.len(), tokens.weight.len()), "advantages and weights");
    let mut coefficients = vec![0.0f64; rows];
    let mut report = PolicyReport::default();
    for completion in &tokens.completions {
        let log_ratio = |r: usize| f64::from(logprobs_policy[r]) - f64::from(tokens.logprobs_sampler[r]);
        let sum: f64 = completion.clone().map(log_ratio).sum();
        let length = completion.len() as f64;
        // The derivative of a sequence's ratio reaches every token of the sequence, so its term is added to each of
        // them below.
        let mut shared = 0.0;
        for r in completion.clone() {
            let (ratio, weight) = match loss.ratio {
                Ratio::Token => (log_ratio(r).exp(), f64::from(tokens.weight[r])),
                Ratio::Sequence => ((sum / length).exp(), f64::from(tokens.weight[r])),
                Ratio::SequenceProduct => (sum.exp(), f64::from(tokens.weight[r])),
            };
            let (value, slope, clipped) = clip(loss, ratio, f64::from(tokens.advantage[r]));
            report.loss -= weight * value;
            report.clipped += if clipped { weight } else { 0.0 };
            match loss.ratio {
                Ratio::Token => coefficients[r] = -weight * slope,
                Ratio::Sequence => shared -= weight * slope / length,
                Ratio::SequenceProduct => shared -= weight * slope,
            }
        }
        completion.clone().for_each(|r| coefficients[r] += shared);
    }
    if loss.kl_coefficient != 0.0 {
        let reference =
            tokens.logprobs_reference.as_ref().expect("a divergence from the reference needs its log-probabilities");
        for r in 0..rows {
            let log_ratio = f64::from(reference[r]) - f64::from(logprobs_policy[r]);
            let weight = f64::from(tokens.weight[r]);
            let k3 = log_ratio.exp() - log_ratio - 1.0;
            report.kl += weight * k3;
            report.loss += f64::from(loss.kl_coefficient) * weight * k3;
            coefficients[r] += f64::from(loss.kl_coefficient) * weight * (1.0 - log_ratio.exp());
        }
    }
    (coefficients.into_iter().map(|c| c as f32).collect(), report)
}

/// Returns `min(ρ·A, clip(ρ)·A)`, its derivative by `log ρ`, and whether the ratio was clipped.
fn clip(loss: &PolicyLoss, ratio: f64, advantage: f64) -> (f64, f64, bool) {
    let (low, high) = (1.0 - f64::from(loss.epsilon_low), 1.0 + f64::from(loss.epsilon_high));
    let cap = loss.ratio_cap.map_or(f64::INFINITY, f64::from);
    let plain = ratio.min(cap) * advantage;
    let clipped = ratio.clamp(low, high) * advantage;
    if plain < clipped {
        (plain, if ratio <= cap { ratio * advantage } else { 0.0 }, ratio > cap)
    } else if (low..=high).contains(&ratio) {
        (clipped, ratio * advantage, false)
    } else {
        (clipped, 0.0, plain != clipped)
    }
}
