//! Measuring a model as it stands: before anything has trained it, on more cases, or with several samples of each (pass@k, maj@k).
//!
//! Every training stage ends in a greedy measurement of its own, so most recipes need no such stage.

use std::sync::atomic::Ordering;
use std::time::Instant;

use kernels::Real;
use lm::{Model, Role};
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::evaluate::{Evaluation, plan};
use crate::recipe::StageFields;
use crate::rollout::{Group, sample};
use crate::stages::sample::CASES_PER_STEP;
use crate::trainer::{StepView, Trainer};
use tasks::{Case, Split};

/// Keys of an `eval` stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Eval {
    /// The model that is measured.
    pub model: String,
    /// Held-out cases; by default those behind every row of the ladder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cases: Option<usize>,
    /// Samples of each case: 1 is greedy, more are drawn at temperature 1 and give pass@k and maj@k.
    #[serde(default = "greedy")]
    pub samples: usize,
}

fn greedy() -> usize {
    1
}

impl StageFields for Eval {
    const FIELDS: &'static [&'static str] = &["model", "cases", "samples"];
}

/// Runs the stage; `heldout` are the cases behind every row.
///
/// # Errors
/// As [`sample`]; [`TrainError::Interrupted`] when the user asked to stop: nothing of a measurement is kept.
pub fn run<T: Real>(stage: &Eval, trainer: &mut Trainer, heldout: &[Case]) -> Result<Evaluation, TrainError> {
    let own = stage.cases.map(|n| trainer.task.cases(Split::Heldout, n, trainer.recipe.seed)).transpose()?;
    let cases = own.as_deref().unwrap_or(heldout);
    let prompting = trainer.prompting()?;
    let mut model = Model::<T>::new(trainer.queue, trainer.weights(&stage.model), Role::Inference);
    let plan = plan(stage.samples, trainer.recipe.eval.max_new_tokens, trainer.key);
    let steps = cases.len().div_ceil(CASES_PER_STEP) as u64;
    trainer.observer.stage(trainer.stage, "eval", 0);
    let mut groups: Vec<Group> = Vec::with_capacity(cases.len());
    for (step, chunk) in (1..).zip(cases.chunks(CASES_PER_STEP)) {
        if trainer.stop.load(Ordering::Relaxed) {
            return Err(TrainError::Interrupted { stage: trainer.stage.into(), step: step - 1 });
        }
        let began = Instant::now();
        let before = groups.len();
        let sampled = sample(trainer.queue, &mut model, &prompting, chunk, &plan)?;
        groups.extend(sampled.into_iter().map(|group| Group { case: before + group.case, ..group }));
        let seconds = began.elapsed().as_secs_f64();
        trainer.meters.seconds += seconds;
        trainer.observer.step(&StepView { stage: trainer.stage, step, steps, metrics: &[], sample: None, seconds });
    }
    for group in &groups {
        trainer.meters.rollouts += group.rollouts.len() as u64;
        trainer.meters.flops += group.sampling_flops(model.config());
    }
    Ok(Evaluation::of(&prompting, trainer.task, cases, &groups, trainer.key))
}
