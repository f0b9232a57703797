//! Evaluates a model without changing it: before any training, on more cases, or with several samples of each (pass@k, maj@k).
//!
//! The pipeline evaluates the model of every training stage greedily, so most recipes need no such stage.

use std::sync::atomic::Ordering;
use std::time::Instant;

use kernels::Real;
use lm::{Model, Role};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::evaluate::{Evaluation, gradable, plan};
use crate::recipe::outline::Roles;
use crate::rollout::{Group, sample};
use crate::stage::estimate::{Estimate, Planning, Work};
use crate::stage::{Outcome, Stage};
use crate::stages::sample::CASES_PER_STEP;
use crate::trainer::{StepView, Trainer};
use tasks::Split;

/// Keys of an `eval` stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Eval {
    /// The model that is evaluated.
    pub model: String,
    /// Held-out cases; by default those behind every row of the ladder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub cases: Option<usize>,
    /// Samples of each case. One is greedy; more are sampled at temperature 1 and give pass@k and maj@k.
    #[serde(default = "greedy")]
    #[schemars(range(min = 1, max = 4_096))]
    pub samples: usize,
}

fn greedy() -> usize {
    1
}

impl Stage for Eval {
    const KIND: &'static str = "eval";
    const SUMMARY: &'static str =
        "Evaluates a model and changes nothing; with several samples of each case it gives pass@k and maj@k.";
    const TUNES: bool = false;

    fn roles(&self) -> Roles {
        Roles { measures: Some(self.model.clone()), heldout_cases: self.cases, ..Roles::default() }
    }

    fn estimate<T: Real>(&self, planning: &Planning) -> Estimate {
        let eval = &planning.settings.eval;
        let (cases, lengths) = (self.cases.unwrap_or(eval.cases), planning.lengths);
        let mut work = Work::default();
        let completion = lengths.completion(eval.max_new_tokens);
        work.sample(planning.config(&self.model), cases as f64, self.samples, lengths.prompt, completion);
        let bytes = planning.sampling_bytes::<T>(&self.model, cases, self.samples, eval.max_new_tokens);
        Estimate { steps: 0, work, bytes }
    }

    /// An evaluation that the user stops starts again from its beginning.
    fn run<T: Real>(&self, trainer: &mut Trainer) -> Result<Outcome, TrainError> {
        let own = self.cases.map(|n| trainer.task.cases(Split::Heldout, n, trainer.settings.seed)).transpose()?;
        let own = own.map(|cases| gradable(trainer.task, cases).0);
        let cases = own.as_deref().unwrap_or(trainer.heldout);
        if cases.is_empty() {
            let hint = "give the cases what their grading needs, such as an `answer`";
            return Err(TrainError::stage(trainer.stage, "no held-out case can be graded", hint));
        }
        let prompting = trainer.prompting()?;
        let mut model = Model::<T>::new(trainer.queue, trainer.weights(&self.model), Role::Inference);
        let plan = plan(self.samples, trainer.settings.eval.max_new_tokens, trainer.key);
        let steps = cases.len().div_ceil(CASES_PER_STEP) as u64;
        trainer.observer.stage(trainer.stage, 0);
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
        let evaluation = Evaluation::of(&prompting, trainer.task, cases, &groups, trainer.key);
        Ok(Outcome { evaluation: Some(evaluation), ..Outcome::default() })
    }
}
