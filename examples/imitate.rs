//! A new stage: the model imitates those of its own completions that the rules find right (STaR, arXiv 2203.14465; RAFT,
//! arXiv 2304.06767).
//!
//! To let recipes name the stage, move this file to `crates/train/src/stages/` and add a line in
//! `crates/train/src/stages/registry.rs`. Its keys, their documentation and their defaults then appear in
//! `ferule explain imitate`.
//!
//! Read next: `stage.rs`, which runs it.

use kernels::Real;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tasks::refusal::Refusal;
use tasks::{Case, Split};
use train::TrainError;
use train::packing::{Sequence, micro_batches};
use train::prompting::plain_sampling;
use train::recipe::{Optimisation, Roles};
use train::rollout::{Plan, sample};
use train::rules::Rules;
use train::stage::{Checking, Estimate, Outcome, Place, Planning, Stage};
use train::step::Signals;
use train::trainer::{StepOutcome, Trainer};

/// The stage's keys.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct Imitate {
    /// The model that learns.
    pub model: String,
    /// Steps.
    pub steps: u64,
    /// Prompts a step.
    pub prompts_per_step: usize,
    /// Completions of each prompt.
    pub samples: usize,
    /// Longest completion, in tokens.
    pub max_new_tokens: usize,
    /// How steps are taken.
    #[serde(flatten)]
    pub optimisation: Optimisation,
}

/// Cases from which prompts are drawn.
const CASES: usize = 1000;

impl Stage for Imitate {
    const KIND: &'static str = "imitate";
    const SUMMARY: &'static str = "Imitates those of the model's own completions that the rules find right.";

    fn roles(&self) -> Roles {
        Roles::trains(&self.model)
    }

    fn optimisation(&self) -> Option<&Optimisation> {
        Some(&self.optimisation)
    }

    fn validate(&self, _: &Place) -> Result<(), Refusal> {
        Ok(())
    }

    fn check(&self, checking: &Checking) -> Result<(), TrainError> {
        checking.rules(&Rules::default(), CASES)?;
        let prompt = checking.longest_prompt(Split::Train, CASES)?;
        checking.completion(&[&self.model], prompt, self.max_new_tokens)
    }

    fn estimate<T: Real>(&self, planning: &Planning) -> Estimate {
        let bytes = planning.learning_bytes::<T>(&self.model, &self.optimisation);
        Estimate { steps: self.steps, bytes, ..Estimate::default() }
    }

    fn run<T: Real>(&self, trainer: &mut Trainer) -> Result<Outcome, TrainError> {
        let prompting = trainer.prompting()?;
        let rules = Rules::default().build(trainer.task, &trainer.settings.folder)?;
        let cases = trainer.task.cases(Split::Train, CASES, trainer.settings.seed)?;
        trainer.train::<T>(
            &self.model,
            &self.optimisation,
            self.steps,
            |trainer, learner, step, rate| {
                let first = step as usize * self.prompts_per_step;
                let chosen: Vec<Case> =
                    (first..first + self.prompts_per_step).map(|i| cases[i % cases.len()].clone()).collect();
                let (sampling, key) = (plain_sampling(1.0), trainer.key.number(step));
                let plan = Plan { samples: self.samples, sampling, max_new_tokens: self.max_new_tokens, key };
                let groups = sample(trainer.queue, &mut learner.model, &prompting, &chosen, &plan)?;
                // The rules look at the known answers: the ladder counts them.
                let ids: Vec<&str> = chosen.iter().map(|case| case.id.as_str()).collect();
                trainer.run.ledger().meter_answers(trainer.stage, &ids)?;
                let mut right = Vec::new();
                for (group, rollout) in groups.iter().flat_map(|group| group.rollouts.iter().map(move |r| (group, r))) {
                    let case = &chosen[group.case];
                    let judged = rules.judge(&case.prompt_text(), case.answer.as_deref(), &rollout.completion());
                    if judged.reward == Some(1.0) {
                        right.push(Sequence::completion(&group.prompt, &rollout.tokens));
                    }
                }
                trainer.meters.rollouts += (self.prompts_per_step * self.samples) as u64;
                let metrics = vec![("right".into(), Some(right.len() as f64))];
                if right.is_empty() {
                    return Ok(StepOutcome { report: None, metrics, sample: None });
                }
                let mean = 1.0 / right.iter().map(Sequence::targets).sum::<usize>() as f32;
                for (batch, weights) in micro_batches(&right, self.optimisation.tokens_per_micro_batch, mean) {
                    learner.accumulate(trainer.queue, &batch, &Signals::cross_entropy(weights));
                }
                let report = learner.update(trainer.queue, rate);
                trainer.meters.flops += learner.flops(&report);
                Ok(StepOutcome { report: Some(report), metrics, sample: None })
            },
            None,
        )?;
        Ok(Outcome::default())
    }
}
