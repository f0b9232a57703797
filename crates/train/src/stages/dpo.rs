//! Direct preference optimisation (DPO): learning from pairs of answers, one of which a person preferred.
//!
//! 1. The pairs come from a file of the user ([`tasks::data::preferences`]). Each is metered as a label. Pairs that
//!    were withdrawn or that hold a held-out case are left out and counted. Nothing is sampled, and no answer of the
//!    task is used.
//! 2. The reference is the model with which the stage begins. Its log-probabilities of all completions are computed
//!    once, before the first step, so that no second copy of the weights is kept. In the first step policy and
//!    reference agree bit for bit, and every margin is exactly 0.
//! 3. Both completions of a pair share their prompt's rows in one micro-batch. A step's loss is the mean over its pairs.
//! 4. The order within an epoch is a shuffle keyed by (seed, stage, epoch).
//! 5. Pairs are trained whole. A pair that is longer than the model's context is refused, never cut.
//!
//! The losses and their sources are in [`crate::preference`].
//!
//! Read next: [`crate::stages::kto`], which needs no pairs.

use std::path::{Path, PathBuf};

use kernels::Real;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::preferences::{self, Answers};
use crate::error::TrainError;
use crate::packing::packed_completions;
use crate::preference::{CompletionRows, PairLoss, PairLossType, PairSignal};
use crate::recipe::optimisation::Optimisation;
use crate::recipe::outline::Roles;
use crate::stage::estimate::{Estimate, Packed, Planning, Work};
use crate::stage::{Checking, Outcome, Place, Stage};
use crate::stages::validation;
use crate::step::Signals;
use crate::teacher::local::LocalTeacher;
use crate::trainer::Trainer;
use tasks::data::preferences::{PairColumns, Preferences, pairs};
use tasks::refusal::Refusal;

/// Keys of a `dpo` stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = preferences::gentle_keys)]
pub struct Dpo {
    /// The model that learns.
    pub model: String,
    /// The file of pairs: JSONL, JSON, CSV, Excel or Parquet.
    #[schemars(extend("format" = "path"))]
    pub path: PathBuf,
    /// What the file calls its columns.
    #[serde(default)]
    pub columns: PairColumns,
    /// What the margin of a pair costs.
    #[serde(default)]
    pub loss_type: PairLossType,
    /// The smaller, the further the model may go from what it was.
    #[serde(default = "beta")]
    #[schemars(range(max = 1000.0), extend("exclusiveMinimum" = 0))]
    pub beta: f32,
    /// The share of pairs that are taken to be the wrong way round, for the loss `robust`.
    #[serde(default)]
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 0.5))]
    pub label_smoothing: f32,
    /// Times each pair is seen.
    #[serde(default = "epochs")]
    #[schemars(range(min = 1, max = 100_000))]
    pub epochs: u64,
    /// Pairs a step.
    #[serde(default = "per_step")]
    #[schemars(range(min = 1, max = 65_536))]
    pub pairs_per_step: usize,
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
fn epochs() -> u64 {
    1
}
fn per_step() -> usize {
    16
}

impl Stage for Dpo {
    const KIND: &'static str = "dpo";
    const SUMMARY: &'static str =
        "Direct preference optimisation: learning from pairs of answers of which people found one better.";

    fn roles(&self) -> Roles {
        Roles::trains(&self.model)
    }

    fn optimisation(&self) -> Option<&Optimisation> {
        Some(&self.optimisation)
    }

    fn validate(&self, place: &Place) -> Result<(), Refusal> {
        let robust = self.loss_type == PairLossType::Robust;
        if robust && self.label_smoothing == 0.0 {
            let hint = "write the share of pairs that may be wrong, such as 0.1, or `loss_type = \"sigmoid\"`";
            return Err(place.refuse("label_smoothing", "is 0, and the loss `robust` differs by it alone", hint));
        }
        if !robust && self.label_smoothing != 0.0 {
            let hint = "set `loss_type = \"robust\"`, or leave it out";
            return Err(place.refuse("label_smoothing", "only the loss `robust` has a use for it", hint));
        }
        Ok(())
    }

    fn check(&self, checking: &Checking) -> Result<(), TrainError> {
        let found = self.pairs(&checking.place.settings.folder)?;
        checking.validation(self.validate_every_steps, self.validation_cases)?;
        preferences::check(&found, &self.model, &self.optimisation, checking)
    }

    fn estimate<T: Real>(&self, planning: &Planning) -> Estimate {
        let (model, keys) = (self.model.as_str(), &self.optimisation);
        let found = self.pairs(&planning.settings.folder).unwrap_or_default();
        let (count, prompt, completion) = preferences::sizes(&found, planning.lengths);
        let packed = |pairs: f64| Packed::groups(pairs, 2, prompt, completion);
        let all = packed(count as f64 * self.epochs as f64);
        let steps = count.div_ceil(self.pairs_per_step) as u64 * self.epochs;
        let mut work = Work {
            train_tokens: all.tokens,
            training_flops: planning.training_flops(model, keys, all),
            reading_flops: planning.reading_flops(model, packed(count as f64)),
            ..Work::default()
        };
        let (every, cases) = (self.validate_every_steps, self.validation_cases);
        planning.validate(&mut work, model, steps, every, cases, planning.settings.eval.max_new_tokens);
        Estimate { steps, work, bytes: planning.learning_bytes::<T>(model, keys) }
    }

    fn run<T: Real>(&self, trainer: &mut Trainer) -> Result<Outcome, TrainError> {
        let rows = preferences::kept(self.pairs(&trainer.settings.folder)?, trainer)?;
        let answers = preferences::encoded(&rows, trainer)?;
        let per_micro_batch = self.optimisation.tokens_per_micro_batch;
        let mut reference = LocalTeacher::<T>::new(trainer.queue, trainer.weights(&self.model));
        let whole = answers.iter().map(Answers::whole);
        let scored = preferences::scored(&mut reference, trainer, whole, per_micro_batch);
        drop(reference);
        let loss = PairLoss { loss_type: self.loss_type, beta: self.beta, label_smoothing: self.label_smoothing };
        let new = trainer.settings.eval.max_new_tokens;
        let validation = validation::greedy::<T>(self.validate_every_steps, self.validation_cases, new, trainer)?;
        let per_epoch = answers.len().div_ceil(self.pairs_per_step) as u64;
        trainer.train::<T>(
            &self.model,
            &self.optimisation,
            per_epoch * self.epochs,
            |trainer, learner, step, rate| {
                let mut order: Vec<usize> = (0..answers.len()).collect();
                trainer.key.word("epoch").number(step / per_epoch).stream().shuffle(&mut order);
                let first = (step % per_epoch) as usize * self.pairs_per_step;
                let chosen: Vec<usize> = order.into_iter().skip(first).take(self.pairs_per_step).collect();
                let whole = chosen.iter().map(|&pair| answers[pair].whole());
                for packed in packed_completions(whole, per_micro_batch) {
                    let rows = packed.rows();
                    let pairs = rows.chunks_exact(2).zip(&chosen[packed.prompts.clone()]);
                    let pairs = pairs.map(|(rows, &pair)| {
                        [0, 1]
                            .map(|side| CompletionRows { rows: rows[side].clone(), reference: scored[2 * pair + side] })
                    });
                    let weight = 1.0 / chosen.len() as f64;
                    let signal = PairSignal { loss, trained: packed.trained(), pairs: pairs.collect(), weight };
                    let signals = Signals { rows: Some(&signal), ..Signals::none(packed.batch.len(), 1.0) };
                    learner.accumulate(trainer.queue, &packed.batch, &signals);
                }
                let report = learner.update(trainer.queue, rate);
                trainer.meters.flops += learner.flops(&report);
                let names = ["reward_margin", "reward_accuracy", "reward_chosen", "reward_rejected"];
                Ok(preferences::outcome(report, &names, Vec::new()))
            },
            validation,
        )?;
        Ok(Outcome::default())
    }
}

impl Dpo {
    fn pairs(&self, folder: &Path) -> Result<Preferences, Refusal> {
        pairs(&folder.join(&self.path), &self.columns)
    }
}
