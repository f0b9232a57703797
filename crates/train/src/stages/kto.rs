//! Kahneman–Tversky optimisation (KTO): learning from single answers that people marked good or bad (thumbs up or
//! down).
//!
//! 1. The thumbs come from a file of the user ([`tasks::data::preferences`]). Each is metered as a label. Thumbs that
//!    were withdrawn or that hold a held-out case are left out and counted. Nothing is sampled, and no answer of the
//!    task is used.
//! 2. The reference is the model with which the stage begins. Its log-probabilities of all completions are computed
//!    once, before the first step, so that no second copy of the weights is kept.
//! 3. Rewards are measured relative to KTO's reference point, an estimate of the KL divergence of the policy from the
//!    reference ([`crate::preference::divergence`]). Every step estimates it, without a gradient, from its own
//!    completions, each placed after another completion's prompt.
//! 4. So a step needs at least two thumbs. Thumbs are assigned to steps once, keyed by (seed, stage). The order of the
//!    steps in an epoch is a shuffle keyed by (seed, stage, epoch). If the last step would have one thumb, that thumb
//!    joins the step before.
//! 5. Answers are trained whole. An answer that is longer than the model's context is refused, never cut.
//!
//! The loss and its source are in [`crate::preference`].
//!
//! Read next: [`crate::stages::dpo`], for pairs.

use std::path::{Path, PathBuf};

use kernels::Real;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::preferences::{self, Answers};
use crate::error::TrainError;
use crate::packing::packed_completions;
use crate::preference::{CompletionRows, Scored, ThumbLoss, ThumbSignal, behind, divergence};
use crate::recipe::optimisation::Optimisation;
use crate::recipe::outline::Roles;
use crate::stage::estimate::{Estimate, Packed, Planning, Work};
use crate::stage::{Checking, Outcome, Place, Stage};
use crate::stages::validation;
use crate::step::{Learner, Signals};
use crate::teacher::local::LocalTeacher;
use crate::trainer::{StepOutcome, Trainer};
use tasks::data::preferences::{Judged, Preferences, ThumbColumns, thumbs};
use tasks::refusal::Refusal;

/// Keys of a `kto` stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = preferences::gentle_keys)]
pub struct Kto {
    /// The model that learns.
    pub model: String,
    /// The file of thumbs: JSONL, JSON, CSV, Excel or Parquet.
    #[schemars(extend("format" = "path"))]
    pub path: PathBuf,
    /// What the file calls its columns.
    #[serde(default)]
    pub columns: ThumbColumns,
    /// The smaller, the further the model may go from what it was.
    #[serde(default = "beta")]
    #[schemars(range(max = 1000.0), extend("exclusiveMinimum" = 0))]
    pub beta: f32,
    /// Weight of answers that were found good. With the counts of both, the two sides should weigh about the same.
    #[serde(default = "one")]
    #[schemars(range(min = 0.0, max = 1e6))]
    pub desirable_weight: f32,
    /// Weight of answers that were found bad.
    #[serde(default = "one")]
    #[schemars(range(min = 0.0, max = 1e6))]
    pub undesirable_weight: f32,
    /// Times each thumb is seen.
    #[serde(default = "epochs")]
    #[schemars(range(min = 1, max = 100_000))]
    pub epochs: u64,
    /// Thumbs a step.
    #[serde(default = "per_step")]
    #[schemars(range(min = 2, max = 65_536), extend("hint" = "each answer is also put behind another's prompt"))]
    pub thumbs_per_step: usize,
    /// Steps between two validations, of which the best one's weights are kept; 0, the default, for none: then no answer is read.
    #[schemars(range(max = 10_000_000))]
    #[serde(default)]
    pub validate_every_steps: u64,
    /// Validation cases.
    #[schemars(range(max = 1_000_000))]
    #[serde(default = "validation_cases")]
    pub validation_cases: usize,
    /// How steps are taken.
    #[serde(flatten, deserialize_with = "preferences::gentle")]
    pub optimisation: Optimisation,
}

fn validation_cases() -> usize {
    200
}
fn beta() -> f32 {
    0.1
}
fn one() -> f32 {
    1.0
}
fn epochs() -> u64 {
    1
}
fn per_step() -> usize {
    16
}

impl Stage for Kto {
    const KIND: &'static str = "kto";
    const SUMMARY: &'static str =
        "Kahneman-Tversky optimisation: learning from single answers that people found good or bad.";

    fn roles(&self) -> Roles {
        Roles::trains(&self.model)
    }

    fn optimisation(&self) -> Option<&Optimisation> {
        Some(&self.optimisation)
    }

    fn validate(&self, place: &Place) -> Result<(), Refusal> {
        if self.desirable_weight == 0.0 && self.undesirable_weight == 0.0 {
            let hint = "give `desirable_weight` or `undesirable_weight` a weight; 1 is the default of both";
            return Err(place.refuse("desirable_weight", "neither good nor bad answers have a weight", hint));
        }
        Ok(())
    }

    fn check(&self, checking: &Checking) -> Result<(), TrainError> {
        let found = self.thumbs(&checking.place.settings.folder)?;
        checking.validation(self.validate_every_steps, self.validation_cases)?;
        preferences::check(&found, &self.model, &self.optimisation, checking)
    }

    fn estimate<T: Real>(&self, planning: &Planning) -> Estimate {
        let (model, keys) = (self.model.as_str(), &self.optimisation);
        let found = self.thumbs(&planning.settings.folder).unwrap_or_default();
        let (count, prompt, completion) = preferences::sizes(&found, planning.lengths);
        let packed = |thumbs: f64| Packed::groups(thumbs, 1, prompt, completion);
        let seen = packed(count as f64 * self.epochs as f64);
        // The reference runs over every answer twice, after its own prompt and after another; the policy runs over the
        // mismatched ones in every epoch.
        let read = packed(count as f64 * (2 + self.epochs) as f64);
        let steps = count.div_ceil(self.thumbs_per_step) as u64 * self.epochs;
        let mut work = Work {
            train_tokens: seen.tokens,
            training_flops: planning.training_flops(model, keys, seen),
            reading_flops: planning.reading_flops(model, read),
            ..Work::default()
        };
        let (every, cases) = (self.validate_every_steps, self.validation_cases);
        planning.validate(&mut work, model, steps, every, cases, planning.settings.eval.max_new_tokens);
        Estimate { steps, work, bytes: planning.learning_bytes::<T>(model, keys) }
    }

    fn run<T: Real>(&self, trainer: &mut Trainer) -> Result<Outcome, TrainError> {
        let rows = preferences::kept(self.thumbs(&trainer.settings.folder)?, trainer)?;
        let answers = preferences::encoded(&rows, trainer)?;
        let desirable: Vec<bool> =
            rows.iter().map(|row| matches!(row.judged, Judged::Thumb { desirable: true, .. })).collect();
        self.weigh(&desirable, trainer)?;
        let batches = batches(answers.len(), self.thumbs_per_step, trainer);
        let mut reference = LocalTeacher::<T>::new(trainer.queue, trainer.weights(&self.model));
        let mut of = |batch: &Vec<usize>| self.scored(batch, &answers, &desirable, &mut reference, trainer);
        let all: Vec<Thumbs> = batches.iter().map(&mut of).collect();
        drop(reference);
        let new = trainer.settings.eval.max_new_tokens;
        let validation = validation::greedy::<T>(self.validate_every_steps, self.validation_cases, new, trainer)?;
        let per_epoch = batches.len() as u64;
        trainer.train::<T>(
            &self.model,
            &self.optimisation,
            per_epoch * self.epochs,
            |trainer, learner, step, rate| {
                let mut order: Vec<usize> = (0..all.len()).collect();
                trainer.key.word("epoch").number(step / per_epoch).stream().shuffle(&mut order);
                Ok(self.step(&all[order[(step % per_epoch) as usize]], trainer, learner, rate))
            },
            validation,
        )?;
        Ok(Outcome::default())
    }
}

/// The thumbs of one step.
struct Thumbs<'a> {
    answers: Vec<&'a Answers>,
    desirable: Vec<bool>,
    /// The reference's log-probability of each completion after its own prompt, in nats.
    own: Vec<f64>,
    /// The reference's log-probability of each prompt's mismatched completion, in nats.
    mismatched: Vec<f64>,
    /// The model's context length, in tokens.
    positions: usize,
}

impl Thumbs<'_> {
    fn own(&self) -> impl Iterator<Item = (&[u32], Vec<&[u32]>)> {
        self.answers.iter().map(|answers| answers.whole())
    }

    /// Each prompt with the completion of the prompt before, cut at the model's context length.
    fn mismatched(&self) -> impl Iterator<Item = (&[u32], Vec<&[u32]>)> {
        self.answers.iter().enumerate().map(|(index, answers)| {
            let other = &self.answers[behind(index, self.answers.len())].completions[0];
            let fitting = other.len().min(self.positions - answers.prompt.len());
            (answers.prompt.as_slice(), vec![&other[..fitting]])
        })
    }
}

impl Kto {
    fn thumbs(&self, folder: &Path) -> Result<Preferences, Refusal> {
        thumbs(&folder.join(&self.path), &self.columns)
    }

    /// Adds a notice if the two sides are out of balance. The paper advises that good answers weigh 1 to 4/3 times as
    /// much in all as bad ones.
    fn weigh(&self, desirable: &[bool], trainer: &mut Trainer) -> Result<(), TrainError> {
        let good = desirable.iter().filter(|&&good| good).count();
        let bad = desirable.len() - good;
        let share = f64::from(self.desirable_weight) * good as f64 / (f64::from(self.undesirable_weight) * bad as f64);
        if !(1.0..=4.0 / 3.0).contains(&share) {
            let weigh = match (good, bad) {
                (_, 0) | (0, _) => "only one side is heard".to_string(),
                _ => format!(
                    "good ones weigh {share:.2} times as much as bad ones, where 1 to 1.33 is advised: set `undesirable_weight`"
                ),
            };
            let text = format!("{}: {good} good and {bad} bad answers; {weigh}", trainer.stage);
            trainer.notice("thumbs_unbalanced", 1, text)?;
        }
        Ok(())
    }

    /// The thumbs of a step, with the reference's log-probabilities.
    fn scored<'a, T: Real>(
        &self,
        batch: &[usize],
        answers: &'a [Answers],
        desirable: &[bool],
        reference: &mut LocalTeacher<T>,
        trainer: &mut Trainer,
    ) -> Thumbs<'a> {
        let mut thumbs = Thumbs {
            answers: batch.iter().map(|&index| &answers[index]).collect(),
            desirable: batch.iter().map(|&index| desirable[index]).collect(),
            own: Vec::new(),
            mismatched: Vec::new(),
            positions: reference.model.config().max_position_embeddings,
        };
        let per_micro_batch = self.optimisation.tokens_per_micro_batch;
        thumbs.own = preferences::scored(reference, trainer, thumbs.own(), per_micro_batch);
        thumbs.mismatched = preferences::scored(reference, trainer, thumbs.mismatched(), per_micro_batch);
        thumbs
    }

    fn step<T: Real>(
        &self,
        thumbs: &Thumbs,
        trainer: &mut Trainer,
        learner: &mut Learner<T>,
        rate: f32,
    ) -> StepOutcome {
        let per_micro_batch = self.optimisation.tokens_per_micro_batch;
        let mut policy = Vec::new();
        for packed in packed_completions(thumbs.mismatched(), per_micro_batch) {
            let targets = preferences::targets(&packed);
            let logprobs = learner.logprobs(trainer.queue, &packed.batch, &targets, 1.0);
            policy.extend(preferences::summed(&packed, &logprobs));
            let (tokens, pairs) = (packed.batch.len(), packed.batch.attention_pairs());
            trainer.meters.flops += learner.model.config().forward_flops(tokens, targets.len(), pairs);
        }
        let scored = policy.iter().zip(&thumbs.mismatched);
        let scored = scored.map(|(&policy, &reference)| Scored { policy, reference, tokens: 0 });
        let divergence = divergence(&scored.collect::<Vec<_>>());
        let good = thumbs.desirable.iter().filter(|&&good| good).count();
        for packed in packed_completions(thumbs.own(), per_micro_batch) {
            let completions = packed.rows().into_iter().zip(packed.prompts.clone());
            let signal = ThumbSignal {
                loss: ThumbLoss {
                    beta: self.beta,
                    desirable_weight: self.desirable_weight,
                    undesirable_weight: self.undesirable_weight,
                },
                divergence,
                trained: packed.trained(),
                thumbs: completions
                    .map(|(rows, index)| {
                        (CompletionRows { rows, reference: thumbs.own[index] }, thumbs.desirable[index])
                    })
                    .collect(),
                counts: [good, thumbs.desirable.len() - good],
            };
            let signals = Signals { rows: Some(&signal), ..Signals::none(packed.batch.len(), 1.0) };
            learner.accumulate(trainer.queue, &packed.batch, &signals);
        }
        let report = learner.update(trainer.queue, rate);
        trainer.meters.flops += learner.flops(&report);
        let names = ["reward_desirable", "reward_undesirable"];
        preferences::outcome(report, &names, vec![("kl".into(), Some(divergence))])
    }
}

/// Assigns thumbs to steps, as lists of indices.
fn batches(count: usize, per_step: usize, trainer: &Trainer) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..count).collect();
    trainer.key.word("batches").stream().shuffle(&mut order);
    let mut batches: Vec<Vec<usize>> = order.chunks(per_step).map(<[usize]>::to_vec).collect();
    if let Some(last) = batches.pop_if(|last| last.len() == 1)
        && let Some(before) = batches.last_mut()
    {
        before.extend(last);
    }
    batches
}
