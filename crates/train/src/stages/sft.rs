//! Supervised fine-tuning on a few demonstrations: cross-entropy on the completion, nothing on the prompt.
//!
//! 1. The demonstrations are the first cases of the training split that have one; each is metered as a label. With `bare_answers` nobody
//!    demonstrated anything: each case is metered as an answer read.
//! 2. Their order in an epoch is a shuffle keyed by (seed, stage, epoch).
//! 3. A step's loss is the mean over its trained tokens.
//! 4. Demonstrations are trained whole: one that exceeds `context` is refused, never cut.

use kernels::{Queue, Real};
use serde::{Deserialize, Serialize};
use store::{Label, LabelKind};

use crate::error::TrainError;
use crate::packing::{Sequence, micro_batches};
use crate::recipe::{Optimisation, StageFields};
use crate::step::{Learner, Signals, StepReport};
use crate::trainer::Trainer;
use tasks::{Case, first_written};

/// Keys of an `sft` stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sft {
    /// The model that learns.
    pub model: String,
    /// Cases whose demonstration is read.
    #[serde(default = "demonstrations")]
    pub demonstrations: usize,
    /// Times each is seen.
    #[serde(default = "epochs")]
    pub epochs: u64,
    /// Demonstrations a step.
    #[serde(default = "per_step")]
    pub demonstrations_per_step: usize,
    /// Whether to train the bare answer, without the reasoning.
    #[serde(default)]
    pub bare_answers: bool,
    /// How steps are taken.
    #[serde(flatten)]
    pub optimisation: Optimisation,
}

fn demonstrations() -> usize {
    200
}
fn epochs() -> u64 {
    8
}
fn per_step() -> usize {
    20
}

impl StageFields for Sft {
    const FIELDS: &'static [&'static str] =
        &["model", "demonstrations", "epochs", "demonstrations_per_step", "bare_answers"];
}

/// Runs the stage.
///
/// # Errors
/// Fewer demonstrations than were asked for, one too long for the model, and whatever the loop meets.
pub fn run<T: Real>(stage: &Sft, trainer: &mut Trainer) -> Result<(), TrainError> {
    let examples = demonstrations_of(stage, trainer)?;
    let per_epoch = examples.len().div_ceil(stage.demonstrations_per_step) as u64;
    let optimisation = &stage.optimisation;
    trainer.train::<T>(
        &stage.model,
        optimisation,
        per_epoch * stage.epochs,
        |trainer, learner, step, rate| {
            let mut order: Vec<usize> = (0..examples.len()).collect();
            trainer.key.word("epoch").number(step / per_epoch).stream().shuffle(&mut order);
            let first = (step % per_epoch) as usize * stage.demonstrations_per_step;
            let chosen = order.iter().skip(first).take(stage.demonstrations_per_step);
            let sequences: Vec<Sequence> = chosen.map(|&i| examples[i].clone()).collect();
            let report =
                cross_entropy_step(trainer.queue, learner, &sequences, optimisation.tokens_per_micro_batch, rate);
            trainer.meters.flops += learner.flops(&report);
            Ok(report.into())
        },
        None,
    )
}

/// One step of plain cross-entropy: the mean over the sequences' trained tokens.
pub(crate) fn cross_entropy_step<T: Real>(
    queue: &Queue,
    learner: &mut Learner<T>,
    sequences: &[Sequence],
    tokens_per_micro_batch: usize,
    rate: f32,
) -> StepReport {
    let targets: usize = sequences.iter().map(Sequence::targets).sum();
    for (batch, weights) in micro_batches(sequences, tokens_per_micro_batch, 1.0 / targets.max(1) as f32) {
        learner.accumulate(queue, &batch, &Signals::cross_entropy(weights));
    }
    learner.update(queue, rate)
}

fn demonstrations_of(stage: &Sft, trainer: &mut Trainer) -> Result<Vec<Sequence>, TrainError> {
    let prompting = trainer.prompting()?;
    let cases = demonstrated(stage, trainer)?;
    let limit = trainer.weights(&stage.model).config().max_position_embeddings;
    let mut sequences = Vec::with_capacity(cases.len());
    for (case, text) in &cases {
        let sequence = Sequence::completion(&prompting.prompt(&case.prompt)?, &prompting.completion(text));
        if sequence.tokens.len() > limit {
            let problem = format!(
                "the demonstration of case {} has {} tokens, the model {limit}",
                case.id,
                sequence.tokens.len()
            );
            return Err(TrainError::stage(trainer.stage, problem, "leave it out, or give the model more positions"));
        }
        sequences.push(sequence);
    }
    if stage.bare_answers {
        let ids: Vec<&str> = cases.iter().map(|(case, _)| case.id.as_str()).collect();
        trainer.run.ledger().meter_answers(trainer.stage, &ids)?;
        return Ok(sequences);
    }
    let labels: Vec<Label> = cases
        .iter()
        .map(|(case, _)| Label {
            record_id: case.id.clone(),
            stage: trainer.stage.into(),
            kind: LabelKind::Demonstration,
        })
        .collect();
    trainer.run.ledger().meter_labels(&labels)?;
    Ok(sequences)
}

fn demonstrated(stage: &Sft, trainer: &Trainer) -> Result<Vec<(Case, String)>, TrainError> {
    let task = trainer.task;
    let written = |case: &Case| if stage.bare_answers { task.bare_answer(case) } else { task.demonstration(case) };
    let found = first_written(task, stage.demonstrations, trainer.recipe.seed, written)?;
    if found.len() < stage.demonstrations {
        let problem = format!("{} demonstrations asked for, the task has {}", stage.demonstrations, found.len());
        return Err(TrainError::stage(trainer.stage, problem, "lower `demonstrations`"));
    }
    Ok(found)
}
