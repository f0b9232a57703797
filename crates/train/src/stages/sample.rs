//! Samples a model's completions and keeps them as a data set. With rules it is rejection sampling.
//!
//! 1. With `min_reward`, completions are scored by the same rules as in reinforcement learning, and those of a lower reward are left out of
//!    the data set. The answers that the rules read are metered.
//! 2. The choice does not depend on the case's hidden record.
//! 3. The data set is the stage's rollout files: token ids, log-probabilities and verdicts. The completions that were left out are in them
//!    too; they have no advantage.
//! 4. With `top_k` the data set is a teacher's artefact ([`crate::teacher::artefact`]): it holds the teacher's most likely tokens at every
//!    position and the probability of the rest. The teacher is the model that samples or, with `teacher`, another model that scores the
//!    completions. So a student's own completions can be stored with its teacher's distributions.

use std::collections::HashMap;

use kernels::Real;
use lm::{Model, Role};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::prompting::plain_sampling;
use crate::recipe::outline::{Made, Roles};
use crate::rollout::{Plan, Rollout, sample};
use crate::rules::{self, Rules};
use crate::stage::estimate::{Estimate, Packed, Planning, Work};
use crate::stage::memory::SCHEDULER_ROWS;
use crate::stage::{Checking, Outcome, Place, Stage};
use crate::tally::Tally;
use crate::teacher::TopKRequest;
use crate::teacher::artefact::{Annotation, annotate};
use crate::trainer::Trainer;
use tasks::refusal::Refusal;
use tasks::rewards::Judged;
use tasks::{Case, Split};

/// Cases sampled between two checkpoints.
pub(crate) const CASES_PER_STEP: usize = 250;

/// Keys of a `sample` stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Sample {
    /// The model that is sampled from.
    pub model: String,
    /// Cases of the training split whose prompts are completed.
    #[serde(default = "cases")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub cases: usize,
    /// Completions of each prompt.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 4_096))]
    pub samples: usize,
    /// Divides the logits; 0 takes the most likely token.
    #[serde(default = "temperature")]
    #[schemars(range(min = 0.0, max = 100.0), extend("hint" = "0 takes the most likely token, 1 samples"))]
    pub temperature: f32,
    /// Longest completion, in tokens.
    #[serde(default = "max_new_tokens")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_new_tokens: usize,
    /// The least reward of a completion that is kept; without it, all completions that ended are kept and no rule scores them.
    #[serde(default)]
    #[schemars(range(min = -1e6, max = 1e6))]
    pub min_reward: Option<f64>,
    /// The rules behind `min_reward`.
    #[serde(default)]
    pub rules: Rules,
    /// The number of most likely tokens that are stored at every position as soft labels; 0 for none.
    #[schemars(range(max = 65_536))]
    #[serde(default)]
    pub top_k: usize,
    /// Divides the logits behind the soft labels.
    #[serde(default = "temperature")]
    #[schemars(range(max = 100.0), extend("exclusiveMinimum" = 0, "hint" = "1 leaves the logits as they are"))]
    pub soft_temperature: f32,
    /// The model that gives the soft labels; by default the one that is sampled from.
    #[serde(default)]
    pub teacher: Option<String>,
}

fn cases() -> usize {
    1500
}
fn one() -> usize {
    1
}
fn temperature() -> f32 {
    1.0
}
fn max_new_tokens() -> usize {
    64
}

impl Stage for Sample {
    const KIND: &'static str = "sample";
    const SUMMARY: &'static str = "Samples a model's completions and keeps them as a data set, with soft labels and selection by rules if you like.";

    fn roles(&self) -> Roles {
        let makes = Made::DataSet { cases: self.cases, samples: self.samples, max_new_tokens: self.max_new_tokens };
        Roles {
            samples: Some(self.model.clone()),
            teacher: self.teacher.clone(),
            makes: Some(makes),
            ..Roles::default()
        }
    }

    fn validate(&self, place: &Place) -> Result<(), Refusal> {
        if self.teacher.is_some() && self.top_k == 0 {
            let problem = "a teacher gives soft labels, and `top_k` is 0";
            return Err(place.refuse("teacher", problem, "set `top_k = 16`, or leave the teacher out"));
        }
        Ok(())
    }

    fn check(&self, checking: &Checking) -> Result<(), TrainError> {
        checking.cases(Split::Train, 1)?;
        if self.min_reward.is_some() {
            checking.rules(&self.rules, self.cases)?;
        }
        let models: Vec<&str> =
            [Some(&self.model), self.teacher.as_ref()].into_iter().flatten().map(String::as_str).collect();
        let prompt = checking.longest_prompt(Split::Train, self.cases)?;
        checking.completion(&models, prompt, self.max_new_tokens)
    }

    fn estimate<T: Real>(&self, planning: &Planning) -> Estimate {
        let lengths = planning.lengths;
        let completion = lengths.completion(self.max_new_tokens);
        let mut work = Work::default();
        let config = planning.config(&self.model);
        work.sample(config, self.cases as f64, self.samples, lengths.prompt, completion);
        work.teacher_tokens = if self.teacher.is_none() { work.sampled_tokens } else { 0.0 };
        let mut bytes = planning.sampling_bytes::<T>(&self.model, self.cases, self.samples, self.max_new_tokens);
        if self.top_k > 0 {
            let reader = self.teacher.as_deref().unwrap_or(&self.model);
            let packed = Packed::sequences(work.rollouts, lengths.prompt, completion);
            work.reading_flops = planning.reading_flops(reader, packed);
            work.teacher_tokens += if self.teacher.is_some() { packed.tokens } else { 0.0 };
            bytes += planning.reading_bytes::<T>(reader, SCHEDULER_ROWS);
        }
        Estimate { steps: self.cases.div_ceil(CASES_PER_STEP) as u64, work, bytes }
    }

    fn run<T: Real>(&self, trainer: &mut Trainer) -> Result<Outcome, TrainError> {
        let prompting = trainer.prompting()?;
        let rules = self.min_reward.map(|_| self.rules.build(trainer.task, &trainer.settings.folder)).transpose()?;
        let cases = trainer.task.cases(Split::Train, self.cases, trainer.settings.seed)?;
        let mut model = Model::<T>::new(trainer.queue, trainer.weights(&self.model), Role::Inference);
        let mut teacher = match self.top_k {
            0 => None,
            _ => Some(trainer.teacher::<T>(self.teacher.as_deref().unwrap_or(&self.model))?),
        };
        let start = trainer.resume_between_steps()?;
        trainer.observer.stage(trainer.stage, start);
        let steps = cases.len().div_ceil(CASES_PER_STEP) as u64;
        for (step, chunk) in (0..steps).zip(cases.chunks(CASES_PER_STEP)).skip(start as usize) {
            let began = std::time::Instant::now();
            let plan = Plan {
                samples: self.samples,
                sampling: plain_sampling(self.temperature),
                max_new_tokens: self.max_new_tokens,
                key: trainer.key,
            };
            let groups = sample(trainer.queue, &mut model, &prompting, chunk, &plan)?;
            trainer.note_uses("prompt", chunk.iter().map(|case| &case.id))?;
            if rules.as_ref().is_some_and(|rules| rules.reads_answers()) {
                let ids: Vec<&str> = chunk.iter().map(|case| case.id.as_str()).collect();
                trainer.run.ledger().meter_answers(trainer.stage, &ids)?;
            }
            let annotation = teacher.as_mut().map(|teacher| {
                let target_temperature = self.teacher.is_some().then_some(plan.sampling.logprob_temperature());
                let request = TopKRequest { k: self.top_k, temperature: self.soft_temperature, target_temperature };
                annotate(trainer.queue, teacher.as_mut(), &groups, request)
            });
            let annotation = annotation.transpose()?;
            let (mut rows, mut tally) = (Vec::new(), Tally::default());
            for group in &groups {
                let case: &Case = &chunk[group.case];
                let prompt = case.prompt_text();
                let judge = |rollout: &Rollout| match &rules {
                    Some(rules) => rules.judge(&prompt, case.answer.as_deref(), &rollout.completion()),
                    None => Judged::default(),
                };
                let judged: Vec<_> = group.rollouts.iter().map(judge).collect();
                let rewards: Vec<Option<f64>> = judged.iter().map(|judged| judged.reward).collect();
                for (rollout, judged) in group.rollouts.iter().zip(&judged) {
                    tally.count(rollout, judged, judged.reward);
                }
                let kept: Vec<Option<f64>> = group
                    .rollouts
                    .iter()
                    .zip(&rewards)
                    .map(|(rollout, reward)| self.keeps(rollout.finished, *reward).then_some(1.0))
                    .collect();
                rows.extend(rules::rows(case, group, &judged, &rewards, &kept));
                let sampled: usize = group.rollouts.iter().map(|rollout| rollout.tokens.len()).sum();
                trainer.meters.teacher_tokens += if self.teacher.is_none() { sampled as u64 } else { 0 };
                trainer.meters.flops += group.sampling_flops(model.config());
            }
            if let Some(annotation) = annotation {
                // Tokens that the teacher has sampled itself are counted above.
                trainer.meters.teacher_tokens += if self.teacher.is_some() { annotation.tokens as u64 } else { 0 };
                trainer.meters.flops += annotation.flops;
                attach_labels(&mut rows, annotation);
            }
            trainer.meters.rollouts += rows.len() as u64;
            let kept = rows.iter().filter(|row| row.advantage.is_some()).count();
            trainer.cursor += kept as u64;
            let mut metrics = vec![
                ("kept".to_string(), (!rows.is_empty()).then(|| kept as f64 / rows.len() as f64)),
                ("completions_not_kept".to_string(), Some((rows.len() - kept) as f64)),
            ];
            metrics.extend(rules.iter().flat_map(|_| tally.rewards()));
            metrics.extend(tally.lengths());
            trainer.run.write_rollouts(trainer.stage, step + 1, &rows)?;
            let shown = rows.first().map(|row| row.completion.as_str());
            trainer.finish_step(step + 1, steps, metrics, shown, began.elapsed().as_secs_f64())?;
            trainer.commit_step(step + 1)?;
        }
        if trainer.cursor == 0 {
            return Err(TrainError::stage(
                trainer.stage,
                "no completion was kept",
                "lower `min_reward`, or teach the model first",
            ));
        }
        Ok(Outcome::default())
    }
}

impl Sample {
    /// Whether a completion is kept in the data set.
    fn keeps(&self, finished: bool, reward: Option<f64>) -> bool {
        finished && self.min_reward.is_none_or(|least| reward.is_some_and(|reward| reward >= least))
    }
}

/// Adds a teacher's labels to the rows of the completions that they label; both are in the order of the groups.
fn attach_labels(rows: &mut [store::Rollout], annotation: Annotation) {
    let mut logprobs = annotation.logprobs.into_iter();
    for (row, labels) in rows.iter_mut().zip(annotation.labels) {
        row.soft = Some(labels);
        row.logprobs_teacher = logprobs.next();
    }
}

/// The completions in the data set of a `sample` stage, each with its case, in order.
///
/// # Errors
/// Files that cannot be read, or a data set without completions.
///
/// # Panics
/// For a stage that makes no data set. Validation refuses such a recipe.
pub(crate) fn data_set(trainer: &Trainer, name: &str) -> Result<Vec<(Case, store::Rollout)>, TrainError> {
    let sampled = trainer.stages.iter().find(|stage| stage.name == name);
    let Some(Made::DataSet { cases, .. }) = sampled.and_then(|stage| stage.roles.makes.clone()) else {
        panic!("\"{name}\" makes no data set, and validation should have refused it");
    };
    let cases = trainer.task.cases(Split::Train, cases, trainer.settings.seed)?;
    let by_id: HashMap<&str, &Case> = cases.iter().map(|case| (case.id.as_str(), case)).collect();
    let mut kept = Vec::new();
    for step in trainer.run.rollout_steps(name)? {
        let rows = trainer.run.rollouts(name, step)?;
        let rows = rows.into_iter().filter(|row| row.advantage.is_some());
        kept.extend(rows.filter_map(|row| Some(((*by_id.get(row.case_id.as_str())?).clone(), row))));
    }
    if kept.is_empty() {
        let problem = format!("the data set \"{name}\" is empty, or its stage comes later");
        return Err(TrainError::stage(trainer.stage, problem, "put the sample stage before this one"));
    }
    Ok(kept)
}
