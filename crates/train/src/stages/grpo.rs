//! Reinforcement learning by rules: GRPO and its family.
//!
//! A step samples a group of completions for each of a few prompts, lets the rules judge them, takes each reward relative to its
//! group, and ascends the clipped policy gradient. Departures from the paper (arXiv 2402.03300), all by keys of the recipe:
//!
//! 1. Sampler and trainer are the same weights and kernels in one process, so the ratio of the first update is exactly 1.
//! 2. `estimator`, `aggregate`, `ratio`, `epsilon_high` make Dr. GRPO, DAPO, GSPO and RLOO of it (see [`crate::policy`]).
//! 3. A group whose rewards are all equal teaches nothing: it is counted and left out; `dynamic_sampling` draws further
//!    prompts in its place. A step without any other group makes no update (`updates` is 0): neither weights nor moments change, where
//!    an update by a gradient of zeros would go on along the last steps' moments, and shrink them.
//! 4. A completion without a reward (a rule abstained or failed) leaves its group; it is counted, never scored 0.
//! 5. The best weights by a validation split are kept, since reward goes on rising after accuracy has turned.
//! 6. With `turns` the completion is a game: the task's environment answers, and says in the end what the game was worth.
//! 7. Completions of a group share their prompt's rows in training as in sampling.

use kernels::Real;
use lm::Batch;
use lm::head::Targets;
use serde::{Deserialize, Serialize};

use crate::advantage::{self, Census, Estimator, overlong_penalty};
use crate::episodes::{games, play};
use crate::error::TrainError;
use crate::evaluate::evaluate;
use crate::packing::{Continuation, PackedGroups, packed_groups};
use crate::policy::{Aggregate, PolicyLoss, Ratio};
use crate::prompting::{Prompting, plain_sampling};
use crate::recipe::{Optimisation, StageFields};
use crate::rollout::{Group, Plan, Rollout, sample};
use crate::rules::{self, Rules};
use crate::snapshots::{Judge, Snapshots};
use crate::step::{Learner, PolicySignal, Signals, StepReport};
use crate::teacher::LocalTeacher;
use crate::trainer::{StepOutcome, Trainer, Validation};
use tasks::rewards::{Judged, RuleSet};
use tasks::{Case, Split};

/// Keys of a `grpo` stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Grpo {
    /// The model that learns.
    pub model: String,
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
    /// Longest completion, in tokens; in a game, of each turn.
    #[serde(default = "max_new_tokens")]
    pub max_new_tokens: usize,
    /// Divides the logits, in sampling and in training.
    #[serde(default = "one")]
    pub temperature: f32,
    /// Turns of a game with the task's environment, whose reward takes the rules' place; with 1, the default, a completion is judged by the
    /// rules.
    #[serde(default = "one_turn")]
    pub turns: usize,
    /// An arm of the task (`answers`, `answer_free`), or a list of rules.
    #[serde(default)]
    pub rules: Rules,
    /// How rewards become advantages.
    #[serde(default)]
    pub estimator: Estimator,
    /// How token losses make one number.
    #[serde(default)]
    pub aggregate: Aggregate,
    /// What the ratio is taken over.
    #[serde(default)]
    pub ratio: Ratio,
    /// Clip of the ratio below.
    #[serde(default = "epsilon")]
    pub epsilon_low: f32,
    /// Clip of the ratio above.
    #[serde(default = "epsilon")]
    pub epsilon_high: f32,
    /// Weight of the divergence from the weights the stage began with.
    #[serde(default)]
    pub kl_coefficient: f32,
    /// Updates on each batch of rollouts; after the first, ratios move and clipping acts.
    #[serde(default = "once")]
    pub updates_per_batch: u64,
    /// Draw further prompts in place of groups whose rewards are all equal, up to three times as many.
    #[serde(default)]
    pub dynamic_sampling: bool,
    /// Completions this near to `max_new_tokens` lose reward, in a straight line down to −1 (DAPO); 0 for none.
    #[serde(default)]
    pub overlong_margin_tokens: usize,
    /// Leave completions that never ended out of the loss (DAPO).
    #[serde(default)]
    pub mask_truncated: bool,
    /// Steps between two validations; 0 for none.
    #[serde(default = "validate_every")]
    pub validate_every_steps: u64,
    /// Validation cases.
    #[serde(default = "validation_cases")]
    pub validation_cases: usize,
    /// Prompts whose answers are kept a few times in the stage, for people to read; 0 for none. Games are kept with the rollouts alone.
    #[serde(default = "watched_prompts")]
    pub watched_prompts: usize,
    /// How steps are taken.
    #[serde(flatten)]
    pub optimisation: Optimisation,
}

fn steps() -> u64 {
    100
}
fn cases() -> usize {
    2000
}
fn prompts_per_step() -> usize {
    16
}
fn completions_per_prompt() -> usize {
    8
}
fn max_new_tokens() -> usize {
    64
}
fn one() -> f32 {
    1.0
}
fn one_turn() -> usize {
    1
}
fn epsilon() -> f32 {
    0.2
}
fn once() -> u64 {
    1
}
fn validate_every() -> u64 {
    25
}
fn validation_cases() -> usize {
    200
}
fn watched_prompts() -> usize {
    2
}

impl StageFields for Grpo {
    const FIELDS: &'static [&'static str] = &[
        "model",
        "steps",
        "cases",
        "prompts_per_step",
        "completions_per_prompt",
        "max_new_tokens",
        "temperature",
        "turns",
        "rules",
        "estimator",
        "aggregate",
        "ratio",
        "epsilon_low",
        "epsilon_high",
        "kl_coefficient",
        "updates_per_batch",
        "dynamic_sampling",
        "overlong_margin_tokens",
        "mask_truncated",
        "validate_every_steps",
        "validation_cases",
        "watched_prompts",
    ];
}

/// A group after judgement.
struct JudgedGroup {
    group: Group,
    judged: Vec<Judged>,
    rewards: Vec<Option<f64>>,
    advantages: Vec<Option<f64>>,
}

/// Runs the stage.
///
/// # Errors
/// Fewer than two completions a prompt, rules that cannot be built, and whatever the loop meets.
pub fn run<T: Real>(stage: &Grpo, trainer: &mut Trainer) -> Result<(), TrainError> {
    if stage.completions_per_prompt < 2 {
        let hint = "a reward is relative to its group; set it to 4 or more";
        return Err(TrainError::stage(trainer.stage, "completions_per_prompt is below 2", hint));
    }
    let prompting = trainer.prompting()?;
    let rules = (stage.turns == 1).then(|| stage.rules.build(trainer.task, &trainer.recipe.folder)).transpose()?;
    let cases = trainer.task.cases(Split::Train, stage.cases, trainer.recipe.seed)?;
    let mut reference =
        (stage.kl_coefficient != 0.0).then(|| LocalTeacher::<T>::new(trainer.queue, trainer.weights(&stage.model)));
    let validation = validation::<T>(stage, trainer)?;
    let watched = if rules.is_some() { stage.watched_prompts } else { 0 };
    let snapshots = Snapshots::new(&cases, watched, stage.steps, stage.max_new_tokens);
    trainer.train::<T>(
        &stage.model,
        &stage.optimisation,
        stage.steps,
        |trainer, learner, step, rate| {
            if let Some(rules) = rules.as_ref().filter(|_| snapshots.is_due(step)) {
                snapshots.look(trainer, &mut learner.model, &prompting, step, Judge::Rules(rules))?;
            }
            let groups = collect(stage, trainer, learner, &prompting, rules.as_ref(), &cases, step)?;
            let outcome = learn(stage, trainer, learner, &groups.kept, reference.as_mut(), rate);
            trainer.run.write_rollouts(trainer.stage, step + 1, &groups.rows)?;
            if let Some(rules) = rules.as_ref().filter(|_| step + 1 == stage.steps && snapshots.is_due(stage.steps)) {
                snapshots.look(trainer, &mut learner.model, &prompting, stage.steps, Judge::Rules(rules))?;
            }
            let metrics = [groups.metrics, outcome.metrics].concat();
            Ok(StepOutcome { metrics, sample: groups.sample, report: outcome.report })
        },
        validation,
    )
}

struct Collected {
    kept: Vec<JudgedGroup>,
    rows: Vec<rules::Row>,
    metrics: Vec<(String, f64)>,
    sample: Option<String>,
}

/// What a step's rollouts were like, all together.
#[derive(Default)]
struct Tally {
    census: Census,
    sampled: usize,
    unfinished: usize,
    tokens: usize,
    entropy: f64,
    reward: f64,
}

impl Tally {
    fn count(&mut self, rollout: &Rollout, reward: Option<f64>) {
        self.sampled += 1;
        self.unfinished += usize::from(!rollout.finished);
        self.tokens += rollout.said_tokens();
        self.entropy += f64::from(rollout.entropy);
        self.reward += reward.unwrap_or(0.0);
    }

    fn metrics(&self) -> Vec<(String, f64)> {
        let of = |sum: f64| sum / self.sampled.max(1) as f64;
        let rewarded = (self.sampled - self.census.without_reward).max(1) as f64;
        vec![
            ("reward".into(), self.reward / rewarded),
            ("groups_all_equal".into(), self.census.all_equal as f64),
            ("completions_without_reward".into(), self.census.without_reward as f64),
            ("completion_tokens".into(), of(self.tokens as f64)),
            ("unfinished".into(), of(self.unfinished as f64)),
            ("sampling_entropy".into(), of(self.entropy)),
        ]
    }
}

/// Samples, judges and compares groups until there are enough.
fn collect<T: Real>(
    stage: &Grpo,
    trainer: &mut Trainer,
    learner: &mut Learner<T>,
    prompting: &Prompting,
    rules: Option<&RuleSet>,
    cases: &[Case],
    step: u64,
) -> Result<Collected, TrainError> {
    let plan = Plan {
        samples: stage.completions_per_prompt,
        sampling: plain_sampling(stage.temperature),
        max_new_tokens: stage.max_new_tokens,
        key: trainer.key.number(step),
    };
    let (mut kept, mut rows, mut tally) = (Vec::new(), Vec::new(), Tally::default());
    let most = if stage.dynamic_sampling { 3 } else { 1 };
    for attempt in 0..most {
        let wanted = stage.prompts_per_step.saturating_sub(kept.len());
        if wanted == 0 {
            break;
        }
        let chosen: Vec<Case> = next_prompts(trainer, cases, wanted);
        // A small pool gives a later attempt the same prompts again: its draws must be others.
        let key = if attempt == 0 { plan.key } else { plan.key.word("attempt").number(attempt) };
        let plan = Plan { key, ..plan.clone() };
        let model = &mut learner.model;
        let groups = match rules {
            Some(rules) => sample(trainer.queue, model, prompting, &chosen, &plan)?
                .into_iter()
                .map(|group| {
                    let judged = judge(rules, &chosen[group.case], &group);
                    (group, judged)
                })
                .collect(),
            None => games(trainer.queue, model, prompting, trainer.task, &chosen, stage.turns, &plan)?,
        };
        trainer.note_uses("prompt", chosen.iter().map(|case| &case.id))?;
        if rules.is_some_and(RuleSet::reads_answers) {
            let ids: Vec<&str> = chosen.iter().map(|case| case.id.as_str()).collect();
            trainer.run.ledger().meter_answers(trainer.stage, &ids)?;
        }
        for (group, judged) in groups {
            trainer.meters.flops += group.sampling_flops(learner.model.config());
            let case = &chosen[group.case];
            let rewards = rewards(stage, &group, &judged);
            group.rollouts.iter().zip(&rewards).for_each(|(rollout, reward)| tally.count(rollout, *reward));
            let informative = tally.census.count(&rewards);
            let advantages = if informative {
                advantage::of_group(&rewards, stage.estimator).expect("an informative group has two finite rewards")
            } else {
                vec![None; rewards.len()]
            };
            rows.extend(rules::rows(case, &group, &judged, &rewards, &advantages));
            if informative {
                kept.push(JudgedGroup { group, judged, rewards, advantages });
            }
        }
    }
    trainer.meters.rollouts += tally.sampled as u64;
    let sample = kept.first().map(shown);
    Ok(Collected { kept, rows, metrics: tally.metrics(), sample })
}

/// What the rules said, less what too great a length costs.
fn rewards(stage: &Grpo, group: &Group, judged: &[Judged]) -> Vec<Option<f64>> {
    let margin = stage.overlong_margin_tokens;
    let penalty = |rollout: &Rollout| overlong_penalty(rollout.tokens.len(), stage.max_new_tokens, margin);
    let of = |(judged, rollout): (&Judged, &Rollout)| judged.reward.map(|reward| reward + penalty(rollout));
    judged.iter().zip(&group.rollouts).map(of).collect()
}

/// A group's first completion with its reward and the rules' reasons, for a person to read.
fn shown(group: &JudgedGroup) -> String {
    let reward = group.rewards[0].map_or("no reward".into(), |reward| format!("reward {reward:.2}"));
    let reasons: Vec<&str> = group.judged[0].verdicts.iter().map(|(_, verdict)| verdict.reason()).collect();
    format!("{} ({reward}: {})", group.group.rollouts[0].text, reasons.join("; "))
}

/// The next prompts of the stage's endless pass through its cases, each pass in an order of its own.
fn next_prompts(trainer: &mut Trainer, cases: &[Case], count: usize) -> Vec<Case> {
    let mut chosen = Vec::with_capacity(count);
    while chosen.len() < count {
        let (pass, place) = (trainer.cursor / cases.len() as u64, (trainer.cursor % cases.len() as u64) as usize);
        let mut order: Vec<usize> = (0..cases.len()).collect();
        trainer.key.word("pass").number(pass).stream().shuffle(&mut order);
        let before = chosen.len();
        chosen.extend(order.iter().skip(place).take(count - before).map(|&index| cases[index].clone()));
        trainer.cursor += (chosen.len() - before) as u64;
    }
    chosen
}

fn judge(rules: &RuleSet, case: &Case, group: &Group) -> Vec<Judged> {
    let prompt = case.prompt_text();
    let answer = case.answer.as_deref();
    group.rollouts.iter().map(|rollout| rules.judge(&prompt, answer, &rollout.completion())).collect()
}

/// One or more updates on the groups of a step.
fn learn<T: Real>(
    stage: &Grpo,
    trainer: &mut Trainer,
    learner: &mut Learner<T>,
    groups: &[JudgedGroup],
    mut reference: Option<&mut LocalTeacher<T>>,
    rate: f32,
) -> StepOutcome {
    let mut micro_batches = micro_batches(stage, groups);
    if let Some(reference) = reference.as_mut() {
        for (batch, policy) in &mut micro_batches {
            let targets = Targets::of(batch, |t| policy.sampled[t]);
            let logprobs = reference.logprobs(trainer.queue, batch, &targets, stage.temperature);
            trainer.meters.flops +=
                reference.model.config().forward_flops(batch.len(), targets.len(), batch.attention_pairs());
            policy.tokens.logprobs_reference = Some(logprobs);
        }
    }
    if micro_batches.is_empty() {
        return StepOutcome { metrics: vec![("updates".into(), 0.0)], ..StepReport::default().into() };
    }
    let mut report = StepReport::default();
    for update in 0..stage.updates_per_batch {
        for (batch, policy) in &mut micro_batches {
            policy.on_policy = update == 0;
            let signals = Signals { policy: Some(policy.clone()), ..Signals::none(batch.len(), stage.temperature) };
            learner.accumulate(trainer.queue, batch, &signals);
        }
        report = learner.update(trainer.queue, rate);
        trainer.meters.flops += learner.flops(&report);
    }
    StepOutcome { metrics: vec![("updates".into(), stage.updates_per_batch as f64)], ..report.into() }
}

/// The step's groups, packed, with the advantages and weights of their tokens.
fn micro_batches(stage: &Grpo, groups: &[JudgedGroup]) -> Vec<(Batch, PolicySignal)> {
    let trains = |group: &JudgedGroup, i: usize| {
        group.advantages[i].is_some() && (group.group.rollouts[i].finished || !stage.mask_truncated)
    };
    // Masked completions count in the mean over completions, as completions without a token.
    let lengths: Vec<usize> = groups
        .iter()
        .flat_map(|group| (0..group.rewards.len()).map(move |i| (group, i)))
        .map(|(group, i)| if trains(group, i) { group.group.rollouts[i].said_tokens() } else { 0 })
        .collect();
    let mut weights = stage.aggregate.token_weights(&lengths, stage.turns * stage.max_new_tokens).into_iter();
    let loss = PolicyLoss {
        ratio: stage.ratio,
        epsilon_low: stage.epsilon_low,
        epsilon_high: stage.epsilon_high,
        ratio_cap: None,
        kl_coefficient: stage.kl_coefficient,
    };
    let groups = groups.iter().map(|group| {
        let rollouts = group.group.rollouts.iter().enumerate().zip(weights.by_ref());
        let trained = rollouts.filter(|((i, _), _)| trains(group, *i)).map(|((i, rollout), weight)| {
            let advantage = group.advantages[i].expect("a trained completion has an advantage") as f32;
            Continuation { rollout, advantage, weight }
        });
        (group.group.prompt.as_slice(), trained.collect())
    });
    packed_groups(groups, stage.optimisation.tokens_per_micro_batch)
        .into_iter()
        .map(|PackedGroups { batch, sampled, tokens }| (batch, PolicySignal { loss, tokens, sampled, on_policy: true }))
        .collect()
}

/// Greedy accuracy on the validation split, or the share of games won there. The answers it reads are metered like any other; a case without one costs nothing.
pub(crate) fn validation<'a, T: Real>(
    stage: &'a Grpo,
    trainer: &mut Trainer,
) -> Result<Option<Validation<'a, T>>, TrainError> {
    let (every_steps, cases) = (stage.validate_every_steps, stage.validation_cases);
    if stage.turns == 1 || every_steps == 0 || cases == 0 {
        return validation_of(every_steps, cases, stage.max_new_tokens, trainer);
    }
    let (prompting, cases) = (trainer.prompting()?, trainer.task.cases(Split::Validation, cases, trainer.recipe.seed)?);
    let measure = move |trainer: &mut Trainer, learner: &mut Learner<T>| {
        let key = trainer.key.word("validation");
        let (model, turns) = (&mut learner.model, stage.turns);
        play(trainer.queue, model, &prompting, trainer.task, &cases, turns, stage.max_new_tokens, key)
            .map(|games| games.won)
    };
    Ok(Some(Validation { every_steps, measure: Box::new(measure) }))
}

/// As [`validation`], for any stage.
pub(crate) fn validation_of<'a, T: Real>(
    every_steps: u64,
    cases: usize,
    max_new_tokens: usize,
    trainer: &mut Trainer,
) -> Result<Option<Validation<'a, T>>, TrainError> {
    if every_steps == 0 || cases == 0 {
        return Ok(None);
    }
    let prompting = trainer.prompting()?;
    let cases = trainer.task.cases(Split::Validation, cases, trainer.recipe.seed)?;
    let read: Vec<&str> = cases.iter().filter(|case| case.answer.is_some()).map(|case| case.id.as_str()).collect();
    trainer.run.ledger().meter_answers(trainer.stage, &read)?;
    Ok(Some(Validation {
        every_steps,
        measure: Box::new(move |trainer, learner| {
            let (queue, task) = (trainer.queue, trainer.task);
            let key = trainer.key.word("validation");
            evaluate(queue, &mut learner.model, &prompting, task, &cases, 1, max_new_tokens, key).map(|e| e.accuracy)
        }),
    }))
}
