//! Preferences of people: from the log-probabilities of whole completions to a loss and one coefficient a token.
//!
//! A person said which of two completions is better (a pair, for DPO), or whether one completion is good (a thumb, for KTO). No reward is
//! modelled and nothing is sampled. What a policy thinks of a completion is its *implicit reward* `beta · (log π − log π_ref)`: how much
//! likelier the completion, all of its tokens together, has become than it was under the reference.
//!
//! With `m` the chosen completion's implicit reward less the rejected one's, the loss of a pair is
//!
//! | `loss_type` | loss | source |
//! |---|---|---|
//! | `sigmoid` | `−log σ(m)` | DPO: Rafailov et al. 2023, arXiv 2305.18290 |
//! | `robust` | `(−(1 − ε)·log σ(m) + ε·log σ(−m)) / (1 − 2ε)` | Chowdhury et al. 2024, arXiv 2403.00409; `ε` is `label_smoothing` |
//! | `ipo` | `(h − 1 / (2·beta))²`, `h` the difference of the two log-ratios *per token* | Azar et al. 2023, arXiv 2310.12036 |
//!
//! The paper on IPO takes sums over tokens; the mean is TRL's, which its authors agreed to, and makes `beta` mean the same for every length.
//!
//! With `z` the [`divergence`] of a batch, the loss of a thumb is `desirable_weight · (1 − σ(reward − beta·z))` where it points up and
//! `undesirable_weight · (1 − σ(beta·z − reward))` where it points down (KTO: Ethayarajh et al. 2024, arXiv 2402.01306). No gradient goes
//! through `z`.
//!
//! Checked against TRL's losses and gradients (`tests/preference_losses.rs`).
//!
//! Read next: [`crate::policy`], whose coefficients come from rewards instead.

use std::ops::Range;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::step::{RowLoss, RowReport};

/// What the margin of a pair costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PairLossType {
    /// The logistic loss of the margin (DPO).
    #[default]
    Sigmoid,
    /// The same, unbiased where a share `label_smoothing` of the pairs is the wrong way round.
    Robust,
    /// The squared distance of the margin per token from `1 / (2·beta)` (IPO): a target, so that certain pairs do not pull for ever.
    Ipo,
}

/// The loss of pairs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairLoss {
    /// What the margin costs.
    pub loss_type: PairLossType,
    /// Nats of log-ratio to one unit of reward: the smaller, the further the policy may go from the reference. Above 0.
    pub beta: f32,
    /// The share of pairs taken to be the wrong way round, below one half; only `robust` reads it.
    pub label_smoothing: f32,
}

/// The loss of thumbs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ThumbLoss {
    /// As in [`PairLoss`].
    pub beta: f32,
    /// Weight of completions that people found good.
    pub desirable_weight: f32,
    /// Weight of completions that people found bad.
    pub undesirable_weight: f32,
}

/// A completion as both models see it, its end token included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    /// Log-probability under the policy, summed over the tokens, in nats.
    pub policy: f64,
    /// The same under the reference.
    pub reference: f64,
    /// How many tokens.
    pub tokens: usize,
}

impl Scored {
    /// How much likelier it is under the policy, in nats.
    pub fn log_ratio(&self) -> f64 {
        self.policy - self.reference
    }
}

/// The loss of one pair and its derivatives, which are those by every token's log-probability too.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairSlope {
    /// The loss.
    pub loss: f64,
    /// `d loss / d logprob` of the chosen completion.
    pub chosen: f64,
    /// `d loss / d logprob` of the rejected one.
    pub rejected: f64,
}

impl PairLoss {
    /// The loss of one pair. A completion without tokens counts as one of one token.
    pub fn of(&self, chosen: Scored, rejected: Scored) -> PairSlope {
        let (beta, smoothing) = (f64::from(self.beta), f64::from(self.label_smoothing));
        let margin = beta * (chosen.log_ratio() - rejected.log_ratio());
        let (loss, slope) = match self.loss_type {
            PairLossType::Sigmoid => (softplus(-margin), -sigmoid(-margin)),
            PairLossType::Robust => {
                let scale = 1.0 / (1.0 - 2.0 * smoothing);
                let loss = (1.0 - smoothing) * softplus(-margin) - smoothing * softplus(margin);
                let slope = -(1.0 - smoothing) * sigmoid(-margin) - smoothing * sigmoid(margin);
                (scale * loss, scale * slope)
            }
            PairLossType::Ipo => {
                let lengths = [chosen, rejected].map(|side| side.tokens.max(1) as f64);
                let [a, b] = [chosen.log_ratio() / lengths[0], rejected.log_ratio() / lengths[1]];
                let miss = a - b - 1.0 / (2.0 * beta);
                let slope = 2.0 * miss;
                return PairSlope { loss: miss * miss, chosen: slope / lengths[0], rejected: -slope / lengths[1] };
            }
        };
        PairSlope { loss, chosen: beta * slope, rejected: -beta * slope }
    }
}

impl ThumbLoss {
    /// The loss of one completion, and its `d loss / d logprob`.
    ///
    /// * `divergence`: of the batch, in nats; see [`divergence`].
    pub fn of(&self, completion: Scored, desirable: bool, divergence: f64) -> (f64, f64) {
        let beta = f64::from(self.beta);
        let (weight, sign) = if desirable { (self.desirable_weight, 1.0) } else { (self.undesirable_weight, -1.0) };
        let weight = f64::from(weight);
        let value = sigmoid(sign * beta * (completion.log_ratio() - divergence));
        (weight * (1.0 - value), -sign * weight * beta * value * (1.0 - value))
    }
}

/// How far the policy has gone from the reference, in nats: the mean log-ratio of completions that belong to other prompts, at least 0.
///
/// It estimates the divergence that KTO measures rewards against. The completions are those of the batch itself, each behind the prompt that
/// [`behind`] says. Zero without any.
pub fn divergence(mismatched: &[Scored]) -> f64 {
    let sum: f64 = mismatched.iter().map(Scored::log_ratio).sum();
    (sum / mismatched.len().max(1) as f64).max(0.0)
}

/// Of a batch of `count`, the completion that stands behind the prompt `index` in the estimate of the [`divergence`]: the one before it.
pub fn behind(index: usize, count: usize) -> usize {
    (index + count - 1) % count
}

/// A completion among the rows of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct CompletionRows {
    /// Its rows.
    pub rows: Range<usize>,
    /// Its log-probability under the reference, in nats.
    pub reference: f64,
}

impl CompletionRows {
    fn scored(&self, logprobs: &[f32]) -> Scored {
        let policy = logprobs[self.rows.clone()].iter().map(|&logprob| f64::from(logprob)).sum();
        Scored { policy, reference: self.reference, tokens: self.rows.len() }
    }
}

/// The pairs of a batch, as a step takes them. It reports `reward_chosen`, `reward_rejected`, `reward_margin`, and `reward_accuracy`: the share
/// of pairs whose chosen completion has the greater implicit reward.
#[derive(Clone, Debug)]
pub struct PairSignal {
    /// The loss.
    pub loss: PairLoss,
    /// `[N]`, whether a token belongs to a completion.
    pub trained: Vec<bool>,
    /// The chosen and the rejected completion of each pair.
    pub pairs: Vec<[CompletionRows; 2]>,
    /// Weight of each pair: one over the pairs of the step.
    pub weight: f64,
}

impl RowLoss for PairSignal {
    fn trained(&self) -> &[bool] {
        &self.trained
    }

    fn coefficients(&self, logprobs: &[f32]) -> (Vec<f32>, RowReport) {
        let mut coefficients = vec![0.0; logprobs.len()];
        let (mut loss, mut right) = (0.0, 0);
        let mut rewards = [0.0; 2];
        for pair in &self.pairs {
            let [chosen, rejected] = [0, 1].map(|side| pair[side].scored(logprobs));
            let slope = self.loss.of(chosen, rejected);
            for (side, slope) in pair.iter().zip([slope.chosen, slope.rejected]) {
                coefficients[side.rows.clone()].fill((self.weight * slope) as f32);
            }
            loss += self.weight * slope.loss;
            for (sum, side) in rewards.iter_mut().zip([chosen, rejected]) {
                *sum += self.weight * f64::from(self.loss.beta) * side.log_ratio();
            }
            right += usize::from(chosen.log_ratio() > rejected.log_ratio());
        }
        let [chosen, rejected] = rewards;
        let figures = vec![
            ("reward_chosen", chosen),
            ("reward_rejected", rejected),
            ("reward_margin", chosen - rejected),
            ("reward_accuracy", self.weight * right as f64),
        ];
        (coefficients, RowReport { loss, figures })
    }
}

/// The thumbs of a batch, as a step takes them. It reports `reward_desirable` and `reward_undesirable`; each is missing where the batch has no
/// such completion.
#[derive(Clone, Debug)]
pub struct ThumbSignal {
    /// The loss.
    pub loss: ThumbLoss,
    /// The step's [`divergence`], in nats.
    pub divergence: f64,
    /// `[N]`, whether a token belongs to a completion.
    pub trained: Vec<bool>,
    /// Each completion, and whether it was found good.
    pub thumbs: Vec<(CompletionRows, bool)>,
    /// Completions of the step that were found good, and bad.
    pub counts: [usize; 2],
}

impl RowLoss for ThumbSignal {
    fn trained(&self) -> &[bool] {
        &self.trained
    }

    fn coefficients(&self, logprobs: &[f32]) -> (Vec<f32>, RowReport) {
        let mut coefficients = vec![0.0; logprobs.len()];
        let weight = 1.0 / self.counts.iter().sum::<usize>().max(1) as f64;
        let mut report = RowReport::default();
        for (completion, desirable) in &self.thumbs {
            let scored = completion.scored(logprobs);
            let (loss, slope) = self.loss.of(scored, *desirable, self.divergence);
            coefficients[completion.rows.clone()].fill((weight * slope) as f32);
            let (name, count) = match desirable {
                true => ("reward_desirable", self.counts[0]),
                false => ("reward_undesirable", self.counts[1]),
            };
            let reward = f64::from(self.loss.beta) * scored.log_ratio();
            report.add(RowReport { loss: weight * loss, figures: vec![(name, reward / count as f64)] });
        }
        (coefficients, report)
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `log(1 + eˣ)`, without overflow.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}
