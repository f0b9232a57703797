//! Distillation on a teacher's completions: hard labels, soft labels, or both.
//!
//! 1. Hard: cross-entropy on the teacher's tokens (Kim & Rush 2016, sequence-level).
//! 2. Soft: a divergence from the teacher's whole distribution at every token, computed from its hidden rows and head block by block, so
//!    exact; forward KL, reverse KL or generalised JSD at a temperature (arXiv 2306.13649).
//! 3. The two add up with `hard_weight` and `soft_weight`. Prompts are never targets.
//! 4. Order within an epoch is a shuffle keyed by (seed, stage, epoch).

use kernels::Real;
use kernels::ops::head::Divergence;
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::packing::{Sequence, micro_batches};
use crate::recipe::{Optimisation, StageFields};
use crate::recipes::sample::data_set;
use crate::step::{Reader, Signals, SoftSignal};
use crate::walk::Walk;

/// A divergence as a recipe names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DivergenceName {
    /// Mass wherever the teacher has it.
    #[default]
    ForwardKl,
    /// Mass only where the teacher has it.
    ReverseKl,
    /// Between the two, by `jsd_beta`.
    Jsd,
}

impl DivergenceName {
    /// The kernel's divergence.
    pub fn with_beta(self, beta: f32) -> Divergence {
        match self {
            DivergenceName::ForwardKl => Divergence::ForwardKl,
            DivergenceName::ReverseKl => Divergence::ReverseKl,
            DivergenceName::Jsd => Divergence::Jsd { beta },
        }
    }
}

/// Keys of a `distill` stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Distill {
    /// The student.
    pub model: String,
    /// The teacher; needed with a `soft_weight`.
    #[serde(default)]
    pub teacher: Option<String>,
    /// The `sample` stage whose completions are learned from.
    pub data: String,
    /// Times each completion is seen.
    #[serde(default = "epochs")]
    pub epochs: u64,
    /// Completions a step.
    #[serde(default = "per_step")]
    pub completions_per_step: usize,
    /// Weight of the cross-entropy on the teacher's tokens.
    #[serde(default)]
    pub hard_weight: f32,
    /// Weight of the divergence.
    #[serde(default)]
    pub soft_weight: f32,
    /// Which divergence.
    #[serde(default)]
    pub divergence: DivergenceName,
    /// The teacher's share of the mixture in `jsd`.
    #[serde(default = "half")]
    pub jsd_beta: f32,
    /// Divides both sides' logits.
    #[serde(default = "one")]
    pub temperature: f32,
    /// How steps are taken.
    #[serde(flatten)]
    pub optimisation: Optimisation,
}

fn epochs() -> u64 {
    4
}
fn per_step() -> usize {
    50
}
fn half() -> f32 {
    0.5
}
fn one() -> f32 {
    1.0
}

impl StageFields for Distill {
    const FIELDS: &'static [&'static str] = &[
        "model",
        "teacher",
        "data",
        "epochs",
        "completions_per_step",
        "hard_weight",
        "soft_weight",
        "divergence",
        "jsd_beta",
        "temperature",
    ];
}

/// Runs the stage.
///
/// # Errors
/// No weight at all, a soft weight without a teacher, an empty data set, and whatever the loop meets.
pub fn run<T: Real>(stage: &Distill, walk: &mut Walk) -> Result<(), TrainError> {
    if stage.hard_weight == 0.0 && stage.soft_weight == 0.0 {
        let hint = "set `hard_weight = 1` for the teacher's text, `soft_weight = 1` for its distribution";
        return Err(TrainError::stage(walk.stage, "neither hard nor soft labels have a weight", hint));
    }
    let codec = walk.codec()?;
    let rows = data_set(walk, &stage.data)?;
    let sequences: Vec<Sequence> = rows
        .iter()
        .map(|(case, row)| Ok(Sequence::completion(&codec.prompt(&case.prompt)?, &row.tokens)))
        .collect::<Result<_, TrainError>>()?;
    let mut teacher = match (&stage.teacher, stage.soft_weight != 0.0) {
        (_, false) => None,
        (Some(teacher), true) => Some(Reader::<T>::new(walk.queue, walk.weights(teacher))),
        (None, true) => {
            return Err(TrainError::stage(walk.stage, "soft labels need a teacher", "name it with `teacher = \"…\"`"));
        }
    };
    let per_epoch = sequences.len().div_ceil(stage.completions_per_step) as u64;
    walk.train::<T>(
        &stage.model,
        &stage.optimisation,
        per_epoch * stage.epochs,
        |walk, learner, step, rate| {
            let mut order: Vec<usize> = (0..sequences.len()).collect();
            walk.key.word("epoch").number(step / per_epoch).stream().shuffle(&mut order);
            let first = (step % per_epoch) as usize * stage.completions_per_step;
            let chosen: Vec<Sequence> =
                order.iter().skip(first).take(stage.completions_per_step).map(|&i| sequences[i].clone()).collect();
            let targets: usize = chosen.iter().map(Sequence::targets).sum();
            let per_micro_batch = stage.optimisation.tokens_per_micro_batch;
            for (batch, weights) in micro_batches(&chosen, per_micro_batch, 1.0 / targets.max(1) as f32) {
                let scaled = |by: f32| weights.iter().map(|weight| weight * by).collect::<Vec<f32>>();
                let soft = teacher.as_mut().map(|teacher| {
                    let (model, activations) = teacher.read(walk.queue, &batch);
                    walk.meters.teacher_tokens += batch.len() as u64;
                    walk.meters.flops += model.config().forward_flops(batch.len(), targets, batch.attention_pairs());
                    let divergence = stage.divergence.with_beta(stage.jsd_beta);
                    SoftSignal { teacher: model, activations, divergence, weight: scaled(stage.soft_weight) }
                });
                let cross_entropy = scaled(stage.hard_weight);
                let signals = Signals { cross_entropy, policy: None, soft, temperature: stage.temperature };
                learner.accumulate(walk.queue, &batch, &signals);
            }
            let report = learner.update(walk.queue, rate);
            walk.meters.flops +=
                learner.model.config().training_flops(report.tokens, report.targets, report.attention_pairs);
            Ok(report.into())
        },
        None,
    )
}
