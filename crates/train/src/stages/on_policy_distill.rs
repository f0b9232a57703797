//! On-policy distillation: the student completes prompts, and the teacher scores every token of the completions. Its older name is
//! *dialogue*.
//!
//! There are two objectives:
//!
//! * `divergence`: minimises a divergence from the teacher's distribution at the student's own prefixes, reverse KL by default (GKD, arXiv
//!   2306.13649; MiniLLM, arXiv 2306.08543).
//! * `policy_gradient`: rewards each sampled token with `log p_teacher − log p_student`, clipped to ±`reward_clip`. The teacher gives the
//!   log-probability of the sampled token only, so a teacher behind an endpoint is enough.
//!
//! How it departs from the papers, and what it shares with other stages:
//!
//! 1. All completions are the student's own; there is no mixture with a fixed data set. No answer and no label is read.
//! 2. Completions of a prompt share its rows, as in `grpo.rs`.
//! 3. A step's loss is the mean over its sampled tokens.

use kernels::Real;
use lm::head::Targets;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::divergence::DivergenceName;
use crate::error::TrainError;
use crate::packing::{Continuation, PackedGroups, packed_groups};
use crate::policy::{PolicyLoss, PolicySignal};
use crate::prompting::plain_sampling;
use crate::recipe::optimisation::Optimisation;
use crate::recipe::outline::Roles;
use crate::rollout::{Group, Plan, sample};
use crate::snapshots::{Judge, Snapshots};
use crate::stage::estimate::{Estimate, Packed, Planning, Work};
use crate::stage::{Checking, Outcome, Place, Stage};
use crate::stages::validation;
use crate::step::{Signals, SoftLabels, SoftSignal};
use crate::tally::Tally;
use crate::trainer::{StepOutcome, Trainer};
use tasks::refusal::Refusal;
use tasks::rewards::Judged;
use tasks::{Case, Split};

/// How the student learns from the teacher's scores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// A divergence between whole distributions.
    #[default]
    Divergence,
    /// A reward for each sampled token.
    PolicyGradient,
}

/// Keys of an `on_policy_distill` stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OnPolicyDistill {
    /// The student.
    pub model: String,
    /// The teacher.
    pub teacher: String,
    /// Steps.
    #[serde(default = "steps")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub steps: u64,
    /// Cases of the training split whose prompts are used.
    #[serde(default = "cases")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub cases: usize,
    /// Prompts per step.
    #[serde(default = "prompts_per_step")]
    #[schemars(range(min = 1, max = 65_536))]
    pub prompts_per_step: usize,
    /// Completions of each prompt.
    #[serde(default = "completions_per_prompt")]
    #[schemars(range(min = 1, max = 4_096))]
    pub completions_per_prompt: usize,
    /// Longest completion, in tokens.
    #[serde(default = "max_new_tokens")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_new_tokens: usize,
    /// Divides the student's logits in sampling, and the logits of student and teacher in the divergence.
    #[serde(default = "one")]
    #[schemars(range(max = 100.0), extend("exclusiveMinimum" = 0, "hint" = "1 leaves the logits as they are"))]
    pub temperature: f32,
    /// Whether the student minimises a divergence from the teacher or is rewarded by it.
    #[serde(default)]
    pub objective: Objective,
    /// The divergence of `objective = "divergence"`.
    #[serde(default = "reverse")]
    pub divergence: DivergenceName,
    /// The teacher's share of the mixture in `jsd`.
    #[serde(default = "half")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub jsd_beta: f32,
    /// Largest absolute reward of a token under `policy_gradient`, in nats.
    #[serde(default = "reward_clip")]
    #[schemars(range(max = 1e6), extend("exclusiveMinimum" = 0))]
    pub reward_clip: f32,
    /// Steps between two validations; 0, the default, for none, so that no answer is read.
    #[schemars(range(max = 10_000_000))]
    #[serde(default)]
    pub validate_every_steps: u64,
    /// Validation cases.
    #[schemars(range(max = 1_000_000))]
    #[serde(default = "validation_cases")]
    pub validation_cases: usize,
    /// Prompts whose completions are stored a few times in the stage, for people to read; 0 for none.
    #[schemars(range(max = 10_000))]
    #[serde(default = "watched_prompts")]
    pub watched_prompts: usize,
    /// How steps are taken.
    #[serde(flatten)]
    pub optimisation: Optimisation,
}

fn steps() -> u64 {
    60
}
fn cases() -> usize {
    2000
}
fn prompts_per_step() -> usize {
    32
}
fn completions_per_prompt() -> usize {
    2
}
fn max_new_tokens() -> usize {
    64
}
fn one() -> f32 {
    1.0
}
fn half() -> f32 {
    0.5
}
fn reverse() -> DivergenceName {
    DivergenceName::ReverseKl
}
fn reward_clip() -> f32 {
    5.0
}
fn validation_cases() -> usize {
    200
}
fn watched_prompts() -> usize {
    2
}

impl Stage for OnPolicyDistill {
    const KIND: &'static str = "on_policy_distill";
    const ALIASES: &'static [&'static str] = &["dialogue"];
    const SUMMARY: &'static str =
        "On-policy distillation: the student completes prompts, and the teacher scores every token of the completions.";

    fn roles(&self) -> Roles {
        Roles { teacher: Some(self.teacher.clone()), ..Roles::trains(&self.model) }
    }

    fn optimisation(&self) -> Option<&Optimisation> {
        Some(&self.optimisation)
    }

    fn validate(&self, place: &Place) -> Result<(), Refusal> {
        place.completions(self.prompts_per_step, self.completions_per_prompt)
    }

    fn check(&self, checking: &Checking) -> Result<(), TrainError> {
        checking.cases(Split::Train, 1)?;
        checking.validation(self.validate_every_steps, self.validation_cases)?;
        let prompt = checking.longest_prompt(Split::Train, self.cases)?;
        checking.completion(&[&self.model, &self.teacher], prompt, self.max_new_tokens)?;
        checking.micro_batch(self.optimisation.tokens_per_micro_batch, prompt + self.max_new_tokens)
    }

    fn estimate<T: Real>(&self, planning: &Planning) -> Estimate {
        let (lengths, keys, model) = (planning.lengths, &self.optimisation, self.model.as_str());
        let groups = (self.steps as usize * self.prompts_per_step) as f64;
        let completion = lengths.completion(self.max_new_tokens);
        let packed = Packed::groups(groups, self.completions_per_prompt, lengths.prompt, completion);
        let mut work = Work {
            train_tokens: packed.tokens,
            teacher_tokens: packed.tokens,
            training_flops: planning.training_flops(model, keys, packed),
            reading_flops: planning.reading_flops(&self.teacher, packed),
            ..Work::default()
        };
        work.sample(planning.config(model), groups, self.completions_per_prompt, lengths.prompt, completion);
        let (every, cases) = (self.validate_every_steps, self.validation_cases);
        planning.validate(&mut work, model, self.steps, every, cases, self.max_new_tokens);
        let (prompts, samples) = (self.prompts_per_step, self.completions_per_prompt);
        let bytes = planning.learning_bytes::<T>(model, keys)
            + planning.cache_bytes::<T>(model, prompts, samples, self.max_new_tokens)
            + planning.reading_bytes::<T>(&self.teacher, keys.tokens_per_micro_batch);
        Estimate { steps: self.steps, work, bytes }
    }

    fn run<T: Real>(&self, trainer: &mut Trainer) -> Result<Outcome, TrainError> {
        let prompting = trainer.prompting()?;
        let cases = trainer.task.cases(Split::Train, self.cases, trainer.settings.seed)?;
        let mut teacher = trainer.teacher::<T>(&self.teacher)?;
        let validation =
            validation::greedy::<T>(self.validate_every_steps, self.validation_cases, self.max_new_tokens, trainer)?;
        let snapshots = Snapshots::new(&cases, self.watched_prompts, self.steps, self.max_new_tokens);
        trainer.train::<T>(
            &self.model,
            &self.optimisation,
            self.steps,
            |trainer, learner, step, rate| {
                if snapshots.is_due(step) {
                    snapshots.take(trainer, &mut learner.model, &prompting, step, Judge::Teacher(teacher.as_mut()))?;
                }
                let first = step as usize * self.prompts_per_step;
                let chosen: Vec<Case> =
                    (0..self.prompts_per_step).map(|i| cases[(first + i) % cases.len()].clone()).collect();
                let plan = Plan {
                    samples: self.completions_per_prompt,
                    sampling: plain_sampling(self.temperature),
                    max_new_tokens: self.max_new_tokens,
                    key: trainer.key.number(step),
                };
                let groups = sample(trainer.queue, &mut learner.model, &prompting, &chosen, &plan)?;
                trainer.note_uses("prompt", chosen.iter().map(|case| &case.id))?;
                let shown = groups.first().map(|group| group.rollouts[0].text.clone());
                let sampled_tokens: usize =
                    groups.iter().flat_map(|group| &group.rollouts).map(|rollout| rollout.tokens.len()).sum();
                let mut tally = Tally::default();
                for rollout in groups.iter().flat_map(|group| &group.rollouts) {
                    tally.count(rollout, &Judged::default(), None);
                }
                let weight = 1.0 / sampled_tokens.max(1) as f32;
                let mut rewards = 0.0;
                for packed in packed_groups(continuations(&groups, weight), self.optimisation.tokens_per_micro_batch) {
                    let PackedGroups { batch, sampled, mut tokens } = packed;
                    trainer.meters.teacher_tokens += batch.len() as u64;
                    trainer.meters.flops +=
                        learner.model.config().forward_flops(batch.len(), tokens.weight.len(), batch.attention_pairs());
                    trainer.meters.flops += teacher.flops(&batch, tokens.weight.len());
                    let none = Signals::none(batch.len(), self.temperature);
                    if self.objective == Objective::Divergence {
                        let local = teacher.local().expect("validation refuses other teachers");
                        let (model, activations) = local.forward(trainer.queue, &batch);
                        let weight = sampled.iter().map(|&sampled| if sampled { weight } else { 0.0 }).collect();
                        let divergence = self.divergence.with_beta(self.jsd_beta);
                        let labels = SoftLabels::Teacher { model, activations, divergence };
                        let soft = Some(SoftSignal { labels, weight });
                        learner.accumulate(trainer.queue, &batch, &Signals { soft, ..none });
                        continue;
                    }
                    let targets = Targets::of(&batch, |t| sampled[t]);
                    let logprobs = teacher.logprobs(trainer.queue, &batch, &targets, self.temperature)?;
                    for (r, logprob) in logprobs.iter().enumerate() {
                        let reward = (logprob - tokens.logprobs_sampler[r]).clamp(-self.reward_clip, self.reward_clip);
                        tokens.advantage[r] = reward;
                        rewards += f64::from(reward);
                    }
                    let policy = PolicySignal { loss: PolicyLoss::default(), tokens, sampled, on_policy: true };
                    learner.accumulate(trainer.queue, &batch, &Signals { rows: Some(&policy), ..none });
                }
                trainer.meters.rollouts += tally.completions() as u64;
                let report = learner.update(trainer.queue, rate);
                if step + 1 == self.steps && snapshots.is_due(self.steps) {
                    snapshots.take(
                        trainer,
                        &mut learner.model,
                        &prompting,
                        self.steps,
                        Judge::Teacher(teacher.as_mut()),
                    )?;
                }
                trainer.meters.flops += learner.flops(&report);
                let mean_reward = (sampled_tokens > 0).then(|| rewards / sampled_tokens as f64);
                let closeness = match self.objective {
                    Objective::Divergence => ("divergence".to_string(), Some(report.divergence)),
                    Objective::PolicyGradient => ("closeness".to_string(), mean_reward),
                };
                let metrics = [vec![closeness], tally.lengths()].concat();
                Ok(StepOutcome { report: Some(report), metrics, sample: shown })
            },
            validation,
        )?;
        Ok(Outcome::default())
    }
}

/// The groups for [`packed_groups`]. Their advantages are filled in after the teacher has scored the tokens.
fn continuations(groups: &[Group], weight: f32) -> impl Iterator<Item = (&[u32], Vec<Continuation<'_>>)> {
    groups.iter().map(move |group| {
        let continuation = |rollout| Continuation { rollout, advantage: 0.0, weight };
        (group.prompt.as_slice(), group.rollouts.iter().map(continuation).collect())
    })
}
