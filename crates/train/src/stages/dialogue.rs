//! Teacher–student dialogue: the student speaks, the teacher judges every token of it (on-policy distillation).
//!
//! Two objectives (arXiv 2306.13649, 2306.08543):
//!
//! * `divergence`: the student's distribution is drawn to the teacher's at the student's own prefixes; reverse KL by default.
//! * `policy_gradient`: each sampled token is rewarded by how much likelier the teacher finds it than the student,
//!   `log p_teacher − log p_student`, clipped to ±`reward_clip`; no distribution but the sampled token's probability is read, so a
//!   teacher behind an endpoint would do.
//!
//! 1. No answer and no label is read.
//! 2. Completions of a prompt share its rows, as in `grpo.rs`.
//! 3. A step's loss is the mean over its sampled tokens.

use kernels::Real;
use lm::head::Targets;
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::packing::{Continuation, PackedGroups, packed_groups};
use crate::policy::PolicyLoss;
use crate::prompting::plain_sampling;
use crate::recipe::{Optimisation, StageFields};
use crate::rollout::{Group, Plan, sample};
use crate::snapshots::{Judge, Snapshots};
use crate::stages::distill::DivergenceName;
use crate::stages::grpo::validation_of;
use crate::step::{PolicySignal, Signals, SoftLabels, SoftSignal};
use crate::teacher::LocalTeacher;
use crate::trainer::{StepOutcome, Trainer};
use tasks::{Case, Split};

/// How the teacher's judgement reaches the student.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// A divergence between whole distributions.
    #[default]
    Divergence,
    /// A reward for each sampled token.
    PolicyGradient,
}

/// Keys of a `dialogue` stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dialogue {
    /// The student.
    pub model: String,
    /// The teacher.
    pub teacher: String,
    /// Steps.
    #[serde(default = "steps")]
    pub steps: u64,
    /// Cases whose prompts are drawn from.
    #[serde(default = "cases")]
    pub cases: usize,
    /// Prompts a step.
    #[serde(default = "prompts_per_step")]
    pub prompts_per_step: usize,
    /// Completions of each prompt.
    #[serde(default = "completions_per_prompt")]
    pub completions_per_prompt: usize,
    /// Longest completion, in tokens.
    #[serde(default = "max_new_tokens")]
    pub max_new_tokens: usize,
    /// Divides the student's logits in sampling, and both sides' in the divergence.
    #[serde(default = "one")]
    pub temperature: f32,
    /// How the teacher's judgement reaches the student.
    #[serde(default)]
    pub objective: Objective,
    /// Which divergence.
    #[serde(default = "reverse")]
    pub divergence: DivergenceName,
    /// The teacher's share of the mixture in `jsd`.
    #[serde(default = "half")]
    pub jsd_beta: f32,
    /// Largest reward or penalty of a token under `policy_gradient`, in nats.
    #[serde(default = "reward_clip")]
    pub reward_clip: f32,
    /// Steps between two validations; 0, the default, for none: then no answer is read.
    #[serde(default)]
    pub validate_every_steps: u64,
    /// Validation cases.
    #[serde(default = "validation_cases")]
    pub validation_cases: usize,
    /// Prompts whose answers are kept a few times in the stage, for people to read; 0 for none.
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

impl StageFields for Dialogue {
    const FIELDS: &'static [&'static str] = &[
        "model",
        "teacher",
        "steps",
        "cases",
        "prompts_per_step",
        "completions_per_prompt",
        "max_new_tokens",
        "temperature",
        "objective",
        "divergence",
        "jsd_beta",
        "reward_clip",
        "validate_every_steps",
        "validation_cases",
        "watched_prompts",
    ];
}

/// Runs the stage.
///
/// # Errors
/// Whatever sampling and the loop meet.
pub fn run<T: Real>(stage: &Dialogue, trainer: &mut Trainer) -> Result<(), TrainError> {
    let prompting = trainer.prompting()?;
    let cases = trainer.task.cases(Split::Train, stage.cases, trainer.recipe.seed)?;
    let mut teacher = LocalTeacher::<T>::new(trainer.queue, trainer.weights(&stage.teacher));
    let validation =
        validation_of::<T>(stage.validate_every_steps, stage.validation_cases, stage.max_new_tokens, trainer)?;
    let snapshots = Snapshots::new(&cases, stage.watched_prompts, stage.steps, stage.max_new_tokens);
    trainer.train::<T>(
        &stage.model,
        &stage.optimisation,
        stage.steps,
        |trainer, learner, step, rate| {
            if snapshots.is_due(step) {
                snapshots.look(trainer, &mut learner.model, &prompting, step, Judge::Teacher(&mut teacher))?;
            }
            let first = step as usize * stage.prompts_per_step;
            let chosen: Vec<Case> =
                (0..stage.prompts_per_step).map(|i| cases[(first + i) % cases.len()].clone()).collect();
            let plan = Plan {
                samples: stage.completions_per_prompt,
                sampling: plain_sampling(stage.temperature),
                max_new_tokens: stage.max_new_tokens,
                key: trainer.key.number(step),
            };
            let groups = sample(trainer.queue, &mut learner.model, &prompting, &chosen, &plan)?;
            trainer.note_uses("prompt", chosen.iter().map(|case| &case.id))?;
            let shown = groups.first().map(|group| group.rollouts[0].text.clone());
            let made: usize = groups.iter().flat_map(|group| &group.rollouts).map(|r| r.tokens.len()).sum();
            let weight = 1.0 / made.max(1) as f32;
            let mut closeness = 0.0;
            for packed in packed_groups(spoken(&groups, weight), stage.optimisation.tokens_per_micro_batch) {
                let PackedGroups { batch, sampled, mut tokens } = packed;
                trainer.meters.teacher_tokens += batch.len() as u64;
                trainer.meters.flops +=
                    learner.model.config().forward_flops(batch.len(), tokens.weight.len(), batch.attention_pairs());
                trainer.meters.flops +=
                    teacher.model.config().forward_flops(batch.len(), tokens.weight.len(), batch.attention_pairs());
                let none = Signals::none(batch.len(), stage.temperature);
                if stage.objective == Objective::Divergence {
                    let (model, activations) = teacher.read(trainer.queue, &batch);
                    let weight = sampled.iter().map(|&sampled| if sampled { weight } else { 0.0 }).collect();
                    let divergence = stage.divergence.with_beta(stage.jsd_beta);
                    let labels = SoftLabels::Teacher { model, activations, divergence };
                    let soft = Some(SoftSignal { labels, weight });
                    learner.accumulate(trainer.queue, &batch, &Signals { soft, ..none });
                    continue;
                }
                let targets = Targets::of(&batch, |t| sampled[t]);
                let logprobs = teacher.logprobs(trainer.queue, &batch, &targets, stage.temperature);
                for (r, logprob) in logprobs.iter().enumerate() {
                    let reward = (logprob - tokens.logprobs_sampler[r]).clamp(-stage.reward_clip, stage.reward_clip);
                    tokens.advantage[r] = reward;
                    closeness += f64::from(reward);
                }
                let policy = Some(PolicySignal { loss: PolicyLoss::default(), tokens, sampled, on_policy: true });
                learner.accumulate(trainer.queue, &batch, &Signals { policy, ..none });
            }
            trainer.meters.rollouts += (stage.prompts_per_step * stage.completions_per_prompt) as u64;
            let report = learner.update(trainer.queue, rate);
            if step + 1 == stage.steps && snapshots.is_due(stage.steps) {
                snapshots.look(trainer, &mut learner.model, &prompting, stage.steps, Judge::Teacher(&mut teacher))?;
            }
            trainer.meters.flops += learner.flops(&report);
            let agreement = match stage.objective {
                Objective::Divergence => ("divergence".to_string(), report.divergence),
                Objective::PolicyGradient => ("closeness".to_string(), closeness / made.max(1) as f64),
            };
            Ok(StepOutcome { report, metrics: vec![agreement], sample: shown })
        },
        validation,
    )
}

/// The groups as the packer takes them; advantages are filled in when the teacher has spoken.
fn spoken(groups: &[Group], weight: f32) -> impl Iterator<Item = (&[u32], Vec<Continuation<'_>>)> {
    groups.iter().map(move |group| {
        let continuation = |rollout| Continuation { rollout, advantage: 0.0, weight };
        (group.prompt.as_slice(), group.rollouts.iter().map(continuation).collect())
    })
}
