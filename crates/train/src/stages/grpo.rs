//! Reinforcement learning by rules: GRPO and its family.
//!
//! A step samples a group of completions for each of a few prompts, scores them by the rules, turns rewards into advantages within each
//! group, and takes a step along the clipped policy gradient. It departs from the paper (arXiv 2402.03300) in these points:
//!
//! 1. Sampler and trainer use the same weights and kernels in one process, so the ratio of the first update is exactly 1.
//! 2. The keys `estimator`, `aggregate`, `ratio` and `epsilon_high` make it Dr. GRPO, DAPO, GSPO or RLOO (see [`crate::policy`]).
//! 3. A group whose rewards are all equal teaches nothing, so it is counted and left out. With `dynamic_sampling`, further prompts are
//!    drawn in its place. A step in which no group is left makes no update (`updates` is 0), and neither weights nor moments change. An
//!    update with a gradient of zeros would move the weights along the moments of earlier steps.
//! 4. A completion without a reward (a rule abstained or failed) is left out of its group; it is counted, never scored 0.
//! 5. The weights with the best validation accuracy are kept, since the reward can go on rising while the accuracy falls.
//! 6. With `turns` a rollout is an episode of several turns. The task's environment replies to each turn and gives the reward at the end.
//! 7. Completions of a group share their prompt's rows, in training as in sampling.

use kernels::Real;
use kernels::rng::Key;
use lm::Batch;
use lm::head::Targets;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::advantage::{self, Census, Estimator, overlong_penalty};
use crate::episodes::{REPLY_TOKENS, evaluate_episodes, sample_episodes};
use crate::error::TrainError;
use crate::packing::{Continuation, PackedGroups, packed_groups};
use crate::policy::{Aggregate, PolicyLoss, PolicySignal, Ratio};
use crate::prompting::{Prompting, plain_sampling};
use crate::recipe::optimisation::Optimisation;
use crate::recipe::outline::Roles;
use crate::rollout::{Group, Plan, Rollout, sample};
use crate::rules::{self, Rules};
use crate::snapshots::{Judge, Snapshots};
use crate::stage::estimate::{Estimate, Packed, Planning, Work, sampling_flops};
use crate::stage::{Checking, Outcome, Place, Stage};
use crate::stages::validation;
use crate::step::{Learner, Signals, StepReport};
use crate::tally::{Figures, Tally};
use crate::teacher::local::LocalTeacher;
use crate::trainer::{StepOutcome, Trainer, Validated, Validation};
use tasks::refusal::Refusal;
use tasks::rewards::{Judged, RuleSet};
use tasks::{Case, Split};

/// Keys of a `grpo` stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Grpo {
    /// The model that learns.
    pub model: String,
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
    #[schemars(range(min = 2, max = 4_096), extend("hint" = "a reward is relative to its group; set it to 4 or more"))]
    pub completions_per_prompt: usize,
    /// Longest completion, in tokens; in an episode of several turns, the longest turn.
    #[serde(default = "max_new_tokens")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_new_tokens: usize,
    /// Divides the logits, in sampling and in training.
    #[serde(default = "one")]
    #[schemars(range(max = 100.0), extend("exclusiveMinimum" = 0, "hint" = "1 leaves the logits as they are"))]
    pub temperature: f32,
    /// Turns of an episode. With 1, the default, the rules score each completion. With more, the task's environment replies to each turn and
    /// gives the reward.
    #[serde(default = "one_turn")]
    #[schemars(range(min = 1, max = 1_000))]
    pub turns: usize,
    /// An arm of the task (`answers`, `answer_free`), or a list of rules.
    #[serde(default)]
    pub rules: Rules,
    /// How rewards become advantages.
    #[serde(default)]
    pub estimator: Estimator,
    /// How the losses of tokens are averaged into one.
    #[serde(default)]
    pub aggregate: Aggregate,
    /// Whether the ratio of policy to sampler is taken over tokens or over sequences.
    #[serde(default)]
    pub ratio: Ratio,
    /// The ratio is clipped below at `1 − epsilon_low`.
    #[serde(default = "epsilon")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub epsilon_low: f32,
    /// The ratio is clipped above at `1 + epsilon_high`.
    #[serde(default = "epsilon")]
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub epsilon_high: f32,
    /// Weight of the KL divergence from the reference, the weights with which the stage began.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub kl_coefficient: f32,
    /// Updates on each batch of rollouts. From the second on, ratios differ from 1 and are clipped.
    #[serde(default = "once")]
    #[schemars(range(min = 1, max = 1_000))]
    pub updates_per_batch: u64,
    /// Whether to draw further prompts in place of groups whose rewards are all equal, at most twice in a step.
    #[serde(default)]
    pub dynamic_sampling: bool,
    /// Tokens before `max_new_tokens` over which a completion loses reward, in a straight line down to −1 (DAPO); 0 for none.
    #[schemars(range(max = 1_000_000))]
    #[serde(default)]
    pub overlong_margin_tokens: usize,
    /// Whether to leave completions that did not end out of the loss (DAPO).
    #[serde(default)]
    pub mask_truncated: bool,
    /// Steps between two validations; 0 for none.
    #[schemars(range(max = 10_000_000))]
    #[serde(default = "validate_every")]
    pub validate_every_steps: u64,
    /// Validation cases.
    #[schemars(range(max = 1_000_000))]
    #[serde(default = "validation_cases")]
    pub validation_cases: usize,
    /// Prompts whose completions are stored a few times in the stage, for people to read; 0 for none. Episodes of several turns are not.
    #[schemars(range(max = 10_000))]
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

/// A group with its verdicts, rewards and advantages.
struct JudgedGroup {
    group: Group,
    judged: Vec<Judged>,
    rewards: Vec<Option<f64>>,
    advantages: Vec<Option<f64>>,
}

impl Stage for Grpo {
    const KIND: &'static str = "grpo";
    const SUMMARY: &'static str =
        "Reinforcement learning by rules: GRPO, and by its keys Dr. GRPO, DAPO, GSPO and RLOO.";

    fn roles(&self) -> Roles {
        Roles::trains(&self.model)
    }

    fn optimisation(&self) -> Option<&Optimisation> {
        Some(&self.optimisation)
    }

    fn validate(&self, place: &Place) -> Result<(), Refusal> {
        place.completions(self.prompts_per_step, self.completions_per_prompt)?;
        if self.turns > 1 && self.rules != Rules::default() {
            let problem = "an episode of several turns is rewarded by the task's environment, not by rules";
            return Err(place.refuse("rules", problem, "leave them out, or set `turns = 1`"));
        }
        if self.turns > 1 && self.overlong_margin_tokens > 0 {
            let problem = "it counts the tokens of one completion, and an episode has several";
            return Err(place.refuse("overlong_margin_tokens", problem, "leave it out, or set `turns = 1`"));
        }
        if self.overlong_margin_tokens > self.max_new_tokens {
            let problem = format!("{} tokens of {}", self.overlong_margin_tokens, self.max_new_tokens);
            return Err(place.refuse("overlong_margin_tokens", problem, "set it to less than `max_new_tokens`"));
        }
        Ok(())
    }

    fn check(&self, checking: &Checking) -> Result<(), TrainError> {
        if self.turns == 1 {
            checking.rules(&self.rules, self.cases)?;
        } else {
            let first = checking.cases(Split::Train, 1)?;
            if first.first().is_none_or(|case| checking.task.game(case, self.turns, Key::new(0)).is_none()) {
                let problem = format!("the task \"{}\" has no episodes of several turns", checking.task.name());
                let hint = "idiom_chain has; leave it out for one completion a case";
                return Err(checking.place.refuse("turns", problem, hint).into());
            }
        }
        checking.validation(self.validate_every_steps, self.validation_cases)?;
        let prompt = checking.longest_prompt(Split::Train, self.cases)?;
        let whole = self.turns * self.max_new_tokens + (self.turns - 1) * REPLY_TOKENS;
        checking.completion(&[&self.model], prompt, whole)?;
        checking.micro_batch(self.optimisation.tokens_per_micro_batch, prompt + whole)
    }

    fn estimate<T: Real>(&self, planning: &Planning) -> Estimate {
        let (lengths, keys, model) = (planning.lengths, &self.optimisation, self.model.as_str());
        let (config, prompt, samples) = (planning.config(model), lengths.prompt, self.completions_per_prompt);
        let groups = (self.steps as usize * self.prompts_per_step) as f64;
        let turn = lengths.completion(self.max_new_tokens);
        let mut work = Work::default();
        work.sample(config, groups, samples, prompt, turn);
        // Every further turn prefills everything before it.
        for before in 1..self.turns {
            let before = prompt + before as f64 * (turn + REPLY_TOKENS as f64);
            let episodes = groups * samples as f64;
            work.sampled_tokens += episodes * turn;
            work.sampling_flops += episodes * sampling_flops(config, 1, 1, before, turn);
        }
        let completion = self.turns as f64 * turn + (self.turns - 1) as f64 * REPLY_TOKENS as f64;
        let packed = Packed::groups(1.0, samples, prompt, completion);
        let updates = groups * self.updates_per_batch as f64;
        work.train_tokens = updates * packed.tokens;
        work.training_flops = updates * planning.training_flops(model, keys, packed);
        let (every, cases) = (self.validate_every_steps, self.validation_cases);
        planning.validate(&mut work, model, self.steps, every, cases, self.max_new_tokens);
        let whole = self.turns * (self.max_new_tokens + REPLY_TOKENS);
        let mut bytes = planning.learning_bytes::<T>(model, keys)
            + planning.cache_bytes::<T>(model, self.prompts_per_step, samples, whole);
        if self.kl_coefficient != 0.0 {
            work.reading_flops = groups * planning.reading_flops(model, packed);
            bytes += planning.reading_bytes::<T>(model, keys.tokens_per_micro_batch);
        }
        Estimate { steps: self.steps, work, bytes }
    }

    fn run<T: Real>(&self, trainer: &mut Trainer) -> Result<Outcome, TrainError> {
        let prompting = trainer.prompting()?;
        let rules = (self.turns == 1).then(|| self.rules.build(trainer.task, &trainer.settings.folder)).transpose()?;
        let cases = trainer.task.cases(Split::Train, self.cases, trainer.settings.seed)?;
        let mut reference =
            (self.kl_coefficient != 0.0).then(|| LocalTeacher::<T>::new(trainer.queue, trainer.weights(&self.model)));
        let validation = self.validation::<T>(trainer)?;
        let watched = if rules.is_some() { self.watched_prompts } else { 0 };
        let snapshots = Snapshots::new(&cases, watched, self.steps, self.max_new_tokens);
        trainer.train::<T>(
            &self.model,
            &self.optimisation,
            self.steps,
            |trainer, learner, step, rate| {
                if let Some(rules) = rules.as_ref().filter(|_| snapshots.is_due(step)) {
                    snapshots.take(trainer, &mut learner.model, &prompting, step, Judge::Rules(rules))?;
                }
                let groups = collect(self, trainer, learner, &prompting, rules.as_ref(), &cases, step)?;
                let report = learn(self, trainer, learner, &groups.kept, reference.as_mut(), rate);
                trainer.run.write_rollouts(trainer.stage, step + 1, &groups.rows)?;
                if let Some(rules) = rules.as_ref().filter(|_| step + 1 == self.steps && snapshots.is_due(self.steps)) {
                    snapshots.take(trainer, &mut learner.model, &prompting, self.steps, Judge::Rules(rules))?;
                }
                let updates = report.as_ref().map_or(0, |_| self.updates_per_batch);
                let metrics = [groups.metrics, vec![("updates".into(), Some(updates as f64))]].concat();
                Ok(StepOutcome { metrics, sample: groups.sample, report })
            },
            validation,
        )?;
        Ok(Outcome::default())
    }
}

impl Grpo {
    /// Greedy accuracy on the validation split or, with `turns`, the share of episodes with the full reward.
    fn validation<'a, T: Real>(&'a self, trainer: &mut Trainer) -> Result<Option<Validation<'a, T>>, TrainError> {
        let (every_steps, cases) = (self.validate_every_steps, self.validation_cases);
        if self.turns == 1 || every_steps == 0 || cases == 0 {
            return validation::greedy(every_steps, cases, self.max_new_tokens, trainer);
        }
        let (prompting, cases) =
            (trainer.prompting()?, trainer.task.cases(Split::Validation, cases, trainer.settings.seed)?);
        let measure = move |trainer: &mut Trainer, learner: &mut Learner<T>| {
            let key = trainer.key.word("validation");
            let (model, turns) = (&mut learner.model, self.turns);
            let (queue, task) = (trainer.queue, trainer.task);
            evaluate_episodes(queue, model, &prompting, task, &cases, turns, self.max_new_tokens, key)
                .map(|found| Validated { accuracy: found.won, completions: found.n, unfinished: found.unfinished })
        };
        Ok(Some(Validation { every_steps, measure: Box::new(measure) }))
    }
}

/// The rollouts of a step.
struct Collected {
    kept: Vec<JudgedGroup>,
    rows: Vec<rules::Row>,
    metrics: Figures,
    sample: Option<String>,
}

/// Samples groups and scores them, until there are enough informative ones or the attempts are used up.
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
    let (mut kept, mut rows, mut tally, mut census) = (Vec::new(), Vec::new(), Tally::default(), Census::default());
    let most = if stage.dynamic_sampling { 3 } else { 1 };
    for attempt in 0..most {
        let wanted = stage.prompts_per_step.saturating_sub(kept.len());
        if wanted == 0 {
            break;
        }
        let chosen: Vec<Case> = next_prompts(trainer, cases, wanted);
        // A later attempt may get the same prompts again, and must not draw the same completions.
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
            None => sample_episodes(trainer.queue, model, prompting, trainer.task, &chosen, stage.turns, &plan)?,
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
            for ((rollout, judged), reward) in group.rollouts.iter().zip(&judged).zip(&rewards) {
                tally.count(rollout, judged, *reward);
            }
            let informative = census.count(&rewards);
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
    trainer.meters.rollouts += tally.completions() as u64;
    let sample = kept.first().map(shown);
    let metrics = [tally.rewards(), census.figures(), tally.lengths()].concat();
    Ok(Collected { kept, rows, metrics, sample })
}

/// The rules' rewards, with the penalty for overlong completions added.
fn rewards(stage: &Grpo, group: &Group, judged: &[Judged]) -> Vec<Option<f64>> {
    let margin = stage.overlong_margin_tokens;
    let penalty = |rollout: &Rollout| overlong_penalty(rollout.tokens.len(), stage.max_new_tokens, margin);
    let of = |(judged, rollout): (&Judged, &Rollout)| judged.reward.map(|reward| reward + penalty(rollout));
    judged.iter().zip(&group.rollouts).map(of).collect()
}

/// A group's first completion with its reward and the rules' reasons, to show to the user.
fn shown(group: &JudgedGroup) -> String {
    let reward = group.rewards[0].map_or("no reward".into(), |reward| format!("reward {reward:.2}"));
    let reasons: Vec<&str> = group.judged[0].verdicts.iter().map(|(_, verdict)| verdict.reason()).collect();
    format!("{} ({reward}: {})", group.group.rollouts[0].text, reasons.join("; "))
}

/// The next cases in the stage's order: pass after pass over all cases, each pass shuffled by a key of its own.
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

/// Takes one or more updates on the groups of a step and reports them as one; none if there is no group.
fn learn<T: Real>(
    stage: &Grpo,
    trainer: &mut Trainer,
    learner: &mut Learner<T>,
    groups: &[JudgedGroup],
    mut reference: Option<&mut LocalTeacher<T>>,
    rate: f32,
) -> Option<StepReport> {
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
        return None;
    }
    let mut reports = Vec::new();
    for update in 0..stage.updates_per_batch {
        for (batch, policy) in &mut micro_batches {
            policy.on_policy = update == 0;
            let signals = Signals { rows: Some(&*policy), ..Signals::none(batch.len(), stage.temperature) };
            learner.accumulate(trainer.queue, batch, &signals);
        }
        let report = learner.update(trainer.queue, rate);
        trainer.meters.flops += learner.flops(&report);
        reports.push(report);
    }
    StepReport::of_updates(&reports)
}

/// The step's groups, packed into micro-batches, with the advantages and weights of their tokens.
fn micro_batches(stage: &Grpo, groups: &[JudgedGroup]) -> Vec<(Batch, PolicySignal)> {
    let trains = |group: &JudgedGroup, i: usize| {
        group.advantages[i].is_some() && (group.group.rollouts[i].finished || !stage.mask_truncated)
    };
    // A masked completion counts in the mean over completions, with a length of 0.
    let lengths: Vec<usize> = groups
        .iter()
        .flat_map(|group| (0..group.rewards.len()).map(move |i| (group, i)))
        .map(|(group, i)| if trains(group, i) { group.group.rollouts[i].sampled_tokens() } else { 0 })
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
