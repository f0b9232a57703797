//! Supervised fine-tuning on a few demonstrations: cross-entropy on the completion, no loss on the prompt.
//!
//! 1. The demonstrations are those of the first cases of the training split that have one; each is metered as a label. With `bare_answers`
//!    no demonstration is used, so each case is metered as an answer read instead.
//! 2. Their order in an epoch is a shuffle keyed by (seed, stage, epoch).
//! 3. A step's loss is the mean over its trained tokens.
//! 4. Demonstrations are trained whole. One that is longer than the model's context is refused, never cut.

use kernels::{Queue, Real};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use store::{Label, LabelKind};

use crate::error::TrainError;
use crate::packing::{Sequence, micro_batches};
use crate::recipe::optimisation::Optimisation;
use crate::recipe::outline::Roles;
use crate::stage::estimate::{Estimate, Packed, Planning, Work};
use crate::stage::{Checking, Outcome, Stage};
use crate::step::{Learner, Signals, StepReport};
use crate::trainer::Trainer;
use tasks::{Case, Task, TaskError, first_written};

/// Keys of an `sft` stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Sft {
    /// The model that learns.
    pub model: String,
    /// Demonstrations to train on.
    #[serde(default = "demonstrations")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub demonstrations: usize,
    /// Passes over the demonstrations.
    #[serde(default = "epochs")]
    #[schemars(range(min = 1, max = 100_000))]
    pub epochs: u64,
    /// Demonstrations per step.
    #[serde(default = "per_step")]
    #[schemars(range(min = 1, max = 65_536))]
    pub demonstrations_per_step: usize,
    /// Whether to train on the bare answers, without the reasoning.
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

impl Stage for Sft {
    const KIND: &'static str = "sft";
    const SUMMARY: &'static str = "Supervised fine-tuning: cross-entropy on the completions of a few demonstrations.";

    fn roles(&self) -> Roles {
        Roles::trains(&self.model)
    }

    fn optimisation(&self) -> Option<&Optimisation> {
        Some(&self.optimisation)
    }

    fn check(&self, checking: &Checking) -> Result<(), TrainError> {
        let demonstrated = self.demonstrated(checking.task, checking.place.settings.seed)?;
        let there = demonstrated.len();
        if there < self.demonstrations {
            let what = if self.bare_answers { "known answers" } else { "demonstrations" };
            let problem = format!("{} {what} asked for, and the training split has {there}", self.demonstrations);
            let hint = format!("ask for at most {there}, or give more cases one");
            return Err(checking.place.refuse("demonstrations", problem, hint).into());
        }
        let Some(prompting) = checking.prompting else { return Ok(()) };
        let mut longest = 0;
        for (case, text) in demonstrated {
            longest = longest.max(prompting.prompt(&case.prompt)?.len() + prompting.completion(&text).len());
        }
        checking.context(&self.model, "demonstrations", longest)?;
        checking.micro_batch(self.optimisation.tokens_per_micro_batch, longest)
    }

    fn estimate<T: Real>(&self, planning: &Planning) -> Estimate {
        let seen = self.demonstrations as f64 * self.epochs as f64;
        let completion = if self.bare_answers { 0.0 } else { planning.lengths.completion(usize::MAX) };
        let completion = if completion.is_finite() { completion } else { 0.0 };
        let packed = Packed::sequences(seen, planning.lengths.prompt, completion);
        let training_flops = planning.training_flops(&self.model, &self.optimisation, packed);
        Estimate {
            steps: (self.demonstrations.div_ceil(self.demonstrations_per_step) as u64) * self.epochs,
            work: Work { train_tokens: packed.tokens, training_flops, ..Work::default() },
            bytes: planning.learning_bytes::<T>(&self.model, &self.optimisation),
        }
    }

    fn run<T: Real>(&self, trainer: &mut Trainer) -> Result<Outcome, TrainError> {
        let examples = self.examples(trainer)?;
        let per_epoch = examples.len().div_ceil(self.demonstrations_per_step) as u64;
        let optimisation = &self.optimisation;
        trainer.train::<T>(
            &self.model,
            optimisation,
            per_epoch * self.epochs,
            |trainer, learner, step, rate| {
                let mut order: Vec<usize> = (0..examples.len()).collect();
                trainer.key.word("epoch").number(step / per_epoch).stream().shuffle(&mut order);
                let first = (step % per_epoch) as usize * self.demonstrations_per_step;
                let chosen = order.iter().skip(first).take(self.demonstrations_per_step);
                let sequences: Vec<Sequence> = chosen.map(|&i| examples[i].clone()).collect();
                let report =
                    cross_entropy_step(trainer.queue, learner, &sequences, optimisation.tokens_per_micro_batch, rate);
                trainer.meters.flops += learner.flops(&report);
                Ok(report.into())
            },
            None,
        )?;
        Ok(Outcome::default())
    }
}

impl Sft {
    /// The demonstrations as sequences, each metered.
    fn examples(&self, trainer: &Trainer) -> Result<Vec<Sequence>, TrainError> {
        let prompting = trainer.prompting()?;
        let cases = self.demonstrated(trainer.task, trainer.settings.seed)?;
        let mut sequences = Vec::with_capacity(cases.len());
        for (case, text) in &cases {
            sequences.push(Sequence::completion(&prompting.prompt(&case.prompt)?, &prompting.completion(text)));
        }
        if self.bare_answers {
            let ids: Vec<&str> = cases.iter().map(|(case, _)| case.id.as_str()).collect();
            trainer.run.ledger().meter_answers(trainer.stage, &ids)?;
            return Ok(sequences);
        }
        let label = |(case, _): &(Case, String)| Label {
            record_id: case.id.clone(),
            stage: trainer.stage.into(),
            kind: LabelKind::Demonstration,
        };
        trainer.run.ledger().meter_labels(&cases.iter().map(label).collect::<Vec<_>>())?;
        Ok(sequences)
    }

    /// The first cases of the training split that have a demonstration, each with the text to train on. There are fewer than
    /// `demonstrations` if the split has fewer.
    fn demonstrated(&self, task: &dyn Task, seed: u64) -> Result<Vec<(Case, String)>, TaskError> {
        let written = |case: &Case| if self.bare_answers { task.bare_answer(case) } else { task.demonstration(case) };
        first_written(task, self.demonstrations, seed, written)
    }
}

/// Takes one step of plain cross-entropy. The loss is the mean over the sequences' trained tokens, in nats.
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
