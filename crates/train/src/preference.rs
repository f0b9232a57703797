//! Preference losses (DPO, robust DPO, IPO, KTO): from the log-probabilities of completions to a loss and one
//! coefficient per token.
//!
//! People either compared two completions of a prompt (a pair, for DPO) or marked one completion as good or bad (a
//! thumb, for KTO). There is no reward model, and nothing is sampled. The *implicit reward* of a completion is
//! `beta · (log π − log π_ref)`: its log-probability under the policy minus that under the reference, each summed over
//! its tokens, times `beta`.
//!
//! With `m` the implicit reward of the chosen completion minus that of the rejected one, the loss of a pair is
//!
//! | `loss_type` | loss | source |
//! |---|---|---|
//! | `sigmoid` | `−log σ(m)` | DPO: Rafailov et al. 2023, arXiv 2305.18290, equation 7 |
//! | `robust` | `(−(1 − ε)·log σ(m) + ε·log σ(−m)) / (1 − 2ε)` | Chowdhury et al. 2024, arXiv 2403.00409; `ε` is `label_smoothing` |
//! | `ipo` | `(h − 1 / (2·beta))²`, `h` the difference of the two log-ratios *per token* | Azar et al. 2023, arXiv 2310.12036, equation 17 |
//!
//! The IPO paper sums over tokens. The mean per token is TRL's, and the paper's authors agreed to it; with it one
//! `beta` suits completions of every length.
//!
//! With `z` the [`divergence`] of a step, the loss of a single completion is
//!
//! * `desirable_weight · (1 − σ(reward − beta·z))` if it was marked good,
//! * `undesirable_weight · (1 − σ(beta·z − reward))` if it was marked bad
//!
//! (KTO: Ethayarajh et al. 2024, arXiv 2402.01306). No gradient goes through `z`.
//!
//! Checked against TRL's losses and gradients (`tests/preference_losses.rs`).
//!
//! Read next: [`crate::policy`], whose coefficients come from rewards.

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
    /// The logistic loss, corrected so that it is unbiased if a share `label_smoothing` of the pairs is
    /// in the wrong order.
    Robust,
    /// The squared difference between the log-ratio margin per token and its target `1 / (2·beta)` (IPO). Because
    /// of the target, certain pairs do not pull for ever.
    Ipo,
}

/// The loss of pairs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairLoss {
    /// Which loss.
    pub loss_type: PairLossType,
    /// Implicit reward per nat of log-ratio. The smaller it is, the further the policy may move from the reference.
    /// Above 0.
    pub beta: f32,
    /// The assumed share of pairs whose order is wrong, below one half. Only `robust` uses it.
    pub label_smoothing: f32,
}

/// The loss of completions that were marked good or bad (KTO).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ThumbLoss {
    /// As in [`PairLoss`].
    pub beta: f32,
    /// Weight of completions that people found good.
    pub desirable_weight: f32,
    /// Weight of completions that people found bad.
    pub undesirable_weight: f32,
}

/// The log-probabilities of one completion under both models. The end token is included.
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
    /// `log π − log π_ref` of the completion, in nats.
    pub fn log_ratio(&self) -> f64 {
        self.policy - self.reference
    }
}

/// The loss of one pair and its derivatives by the log-probabilities of the two completions. Each is also the
/// derivative by the log-probability of every single token of its completion.
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
    /// Computes the loss of one pair. IPO divides by lengths; there a completion without tokens counts as one token
    /// long.
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
    /// Computes the loss of one completion and its derivative `d loss / d logprob`.
    ///
    /// * `divergence`: that of the step, in nats; see [`divergence`].
    pub fn of(&self, completion: Scored, desirable: bool, divergence: f64) -> (f64, f64) {
        let beta = f64::from(self.beta);
        let (weight, sign) = if desirable { (self.desirable_weight, 1.0) } else { (self.undesirable_weight, -1.0) };
        let weight = f64::from(weight);
        let value = sigmoid(sign * beta * (completion.log_ratio() - divergence));
        (weight * (1.0 - value), -sign * weight * beta * value * (1.0 - value))
    }
}

/// KTO's reference point `z`: the mean log-ratio of mismatched completions, at least 0, in nats. It is 0 without
/// completions.
///
/// It estimates the KL divergence of the policy from the reference. A mismatched completion is a completion of the same
/// step that stands after the prompt of another; [`behind`] says after which.
pub fn divergence(mismatched: &[Scored]) -> f64 {
    let sum: f64 = mismatched.iter().map(Scored::log_ratio).sum();
    (sum / mismatched.len().max(1) as f64).max(0.0)
}

/// In a step of `count` completions, the index of the completion that stands after prompt `index` in the estimate of
/// the [`divergence`]. It is the one before; the first prompt gets the last completion.
pub fn behind(index: usize, count: usize) -> usize {
    (index + count - 1) % count
}

/// The rows of one completion in a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct CompletionRows {
    /// Its rows, counted among the trained rows of the batch.
    pub rows: Range<usize>,
    /// Its log-probability under the reference, summed over its tokens, in nats.
    pub reference: f64,
}

impl CompletionRows {
    fn scored(&self, logprobs: &[f32]) -> Scored {
        let policy = logprobs[self.rows.clone()].iter().map(|&logprob| f64::from(logprob)).sum();
        Scored { policy, reference: self.reference, tokens: self.rows.len() }
    }
}

/// The preference pairs of a batch, as a signal. It reports `reward_chosen`, `reward_rejected`, `reward_margin`, and
/// `reward_accuracy`: the share of pairs whose chosen completion has the greater implicit reward.
#[derive(Clone, Debug)]
pub struct PairSignal {
    /// The loss.
    pub loss: PairLoss,
    /// `[N]`, whether a token belongs to a completion.
    pub trained: Vec<bool>,
    /// The chosen and the rejected completion of each pair.
    pub pairs: Vec<[CompletionRows; 2]>,
    /// Weight of each pair: 1 / (number of pairs in the step).
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

/// The marked completions of a batch, as a signal. It reports `reward_desirable` and `reward_undesirable`. Each is
/// missing if the batch has no such completion.
#[derive(Clone, Debug)]
pub struct ThumbSignal {
    /// The loss.
    pub loss: ThumbLoss,
    /// The step's [`divergence`], in nats.
    pub divergence: f64,
    /// `[N]`, whether a token belongs to a completion.
    pub trained: Vec<bool>,
    /// Each completion, and whether it was marked good.
    pub thumbs: Vec<(CompletionRows, bool)>,
    /// How many completions of the step were marked good, and how many bad.
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
