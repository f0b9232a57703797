//! A teacher's completions, kept as a data set: rejection sampling where the rules may reject.
//!
//! 1. Completions are graded by the same rules as reinforcement learning's; with `min_reward` those below are kept out of the
//!    data set, and what the rules read is metered.
//! 2. Nothing is chosen by the case's hidden record.
//! 3. The data set is the stage's rollout files: token ids, log-probabilities and verdicts, with the rejected ones in them, marked by
//!    having no advantage. With `top_k` it is a teacher's artefact ([`crate::teacher::artefact`]): the teacher's most likely tokens at every
//!    token, and the rest of its mass. The teacher is the model that speaks or, with `teacher`, another one that listens; so a student's own
//!    words can be kept with its teacher's judgement of them.

use std::collections::HashMap;

use kernels::Real;
use lm::{Model, Role};
use serde::{Deserialize, Serialize};
use store::Checkpoint;

use crate::error::TrainError;
use crate::prompting::plain_sampling;
use crate::recipe::{StageFields, StageKind};
use crate::rollout::{Plan, sample};
use crate::rules::{self, Rules};
use crate::teacher::LocalTeacher;
use crate::teacher::artefact::{Annotation, Questions, annotate};
use crate::trainer::{StepView, Trainer};
use tasks::suggest;
use tasks::{Case, Split};

/// Cases sampled between two checkpoints.
pub(crate) const CASES_PER_STEP: usize = 250;

/// Keys of a `sample` stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The model that speaks.
    pub model: String,
    /// Cases of the training split.
    #[serde(default = "cases")]
    pub cases: usize,
    /// Completions of each.
    #[serde(default = "one")]
    pub samples: usize,
    /// Divides the logits; 0 takes the most likely token.
    #[serde(default = "hot")]
    pub temperature: f32,
    /// Longest completion, in tokens.
    #[serde(default = "max_new_tokens")]
    pub max_new_tokens: usize,
    /// Keep completions with at least this reward; by default all that ended, unjudged.
    #[serde(default)]
    pub min_reward: Option<f64>,
    /// The rules behind `min_reward`.
    #[serde(default)]
    pub rules: Rules,
    /// Most likely tokens kept at every token as soft labels; 0 for none.
    #[serde(default)]
    pub top_k: usize,
    /// Divides the logits behind the soft labels.
    #[serde(default = "hot")]
    pub soft_temperature: f32,
    /// Whose soft labels; the speaking model's own by default.
    #[serde(default)]
    pub teacher: Option<String>,
}

fn cases() -> usize {
    1500
}
fn one() -> usize {
    1
}
fn hot() -> f32 {
    1.0
}
fn max_new_tokens() -> usize {
    64
}

impl StageFields for Sample {
    const FIELDS: &'static [&'static str] = &[
        "model",
        "cases",
        "samples",
        "temperature",
        "max_new_tokens",
        "min_reward",
        "rules",
        "top_k",
        "soft_temperature",
        "teacher",
    ];
}

/// Runs the stage.
///
/// # Errors
/// A data set that would be empty, a teacher that is asked nothing, and whatever sampling meets.
pub fn run<T: Real>(stage: &Sample, trainer: &mut Trainer) -> Result<(), TrainError> {
    if stage.teacher.is_some() && stage.top_k == 0 {
        let hint = "set `top_k = 16`, or leave the teacher out";
        return Err(TrainError::stage(trainer.stage, "a teacher listens, and none of its tokens are kept", hint));
    }
    if stage.soft_temperature <= 0.0 {
        return Err(TrainError::stage(
            trainer.stage,
            "soft_temperature is not above 0",
            "1 leaves the logits as they are",
        ));
    }
    let prompting = trainer.prompting()?;
    let rules = stage.min_reward.map(|_| stage.rules.build(trainer.task, &trainer.recipe.folder)).transpose()?;
    let cases = trainer.task.cases(Split::Train, stage.cases, trainer.recipe.seed)?;
    let mut model = Model::<T>::new(trainer.queue, trainer.weights(&stage.model), Role::Inference);
    let mut listener = (stage.top_k > 0).then(|| {
        LocalTeacher::<T>::new(trainer.queue, trainer.weights(stage.teacher.as_deref().unwrap_or(&stage.model)))
    });
    let start = trainer.resume_between_steps()?;
    trainer.observer.stage(trainer.stage, "sample", start);
    let steps = cases.len().div_ceil(CASES_PER_STEP) as u64;
    for (step, chunk) in (0..steps).zip(cases.chunks(CASES_PER_STEP)).skip(start as usize) {
        let began = std::time::Instant::now();
        let plan = Plan {
            samples: stage.samples,
            sampling: plain_sampling(stage.temperature),
            max_new_tokens: stage.max_new_tokens,
            key: trainer.key,
        };
        let groups = sample(trainer.queue, &mut model, &prompting, chunk, &plan)?;
        trainer.note_uses("prompt", chunk.iter().map(|case| &case.id))?;
        if rules.as_ref().is_some_and(|rules| rules.reads_answers()) {
            let ids: Vec<&str> = chunk.iter().map(|case| case.id.as_str()).collect();
            trainer.run.ledger().meter_answers(trainer.stage, &ids)?;
        }
        let annotation = listener.as_mut().map(|listener| {
            let listen_at = stage.teacher.is_some().then_some(plan.sampling.logprob_temperature());
            let questions = Questions { k: stage.top_k, temperature: stage.soft_temperature, listen_at };
            annotate(trainer.queue, listener, &groups, questions)
        });
        let mut rows = Vec::new();
        for group in &groups {
            let case: &Case = &chunk[group.case];
            let prompt = case.prompt_text();
            let judge = |rollout: &crate::rollout::Rollout| match &rules {
                Some(rules) => rules.judge(&prompt, case.answer.as_deref(), &rollout.completion()),
                None => tasks::rewards::Judged { reward: None, verdicts: Vec::new() },
            };
            let judged: Vec<_> = group.rollouts.iter().map(judge).collect();
            let rewards: Vec<Option<f64>> = judged.iter().map(|judged| judged.reward).collect();
            let kept: Vec<Option<f64>> = group
                .rollouts
                .iter()
                .zip(&rewards)
                .map(|(rollout, reward)| keeps(stage, rollout.finished, *reward).then_some(1.0))
                .collect();
            rows.extend(rules::rows(case, group, &judged, &rewards, &kept));
            let made: usize = group.rollouts.iter().map(|rollout| rollout.tokens.len()).sum();
            trainer.meters.teacher_tokens += if stage.teacher.is_none() { made as u64 } else { 0 };
            trainer.meters.flops += group.sampling_flops(model.config());
        }
        if let Some(annotation) = annotation {
            // Tokens that the teacher has made itself are its tokens already.
            trainer.meters.teacher_tokens += if stage.teacher.is_some() { annotation.tokens as u64 } else { 0 };
            trainer.meters.flops += annotation.flops;
            put(&mut rows, annotation);
        }
        trainer.meters.rollouts += rows.len() as u64;
        let kept = rows.iter().filter(|row| row.advantage.is_some()).count();
        trainer.cursor += kept as u64;
        let metrics = [("kept".to_string(), kept as f64 / rows.len() as f64)];
        let shown = rows.first().map(|row| row.completion.clone());
        trainer.run.write_rollouts(trainer.stage, step + 1, &rows)?;
        let seconds = began.elapsed().as_secs_f64();
        trainer.meters.seconds += seconds;
        let view = StepView {
            stage: trainer.stage,
            step: step + 1,
            steps,
            metrics: &metrics,
            sample: shown.as_deref(),
            seconds,
        };
        trainer.observer.step(&view);
        trainer.commit_step(step + 1)?;
    }
    if trainer.cursor == 0 {
        return Err(TrainError::stage(
            trainer.stage,
            "no completion was kept",
            "lower `min_reward`, or teach the model first",
        ));
    }
    Ok(())
}

/// Puts a teacher's labels beside the completions they speak of; both are in the order of the groups.
fn put(rows: &mut [store::Rollout], annotation: Annotation) {
    let mut logprobs = annotation.logprobs.into_iter();
    for (row, labels) in rows.iter_mut().zip(annotation.labels) {
        row.soft = Some(labels);
        row.logprobs_teacher = logprobs.next();
    }
}

fn keeps(stage: &Sample, finished: bool, reward: Option<f64>) -> bool {
    finished && stage.min_reward.is_none_or(|least| reward.is_some_and(|reward| reward >= least))
}

/// The kept completions of a `sample` stage, each with its case, in order.
///
/// # Errors
/// A stage that is no `sample` stage, or was not run.
pub(crate) fn data_set(trainer: &Trainer, name: &str) -> Result<Vec<(Case, store::Rollout)>, TrainError> {
    let sampled = trainer.recipe.stages.iter().find_map(|stage| match &stage.kind {
        StageKind::Sample(sample) if stage.name == name => Some(sample),
        _ => None,
    });
    let Some(sampled) = sampled else {
        let names = trainer.recipe.stages.iter().filter(|stage| matches!(stage.kind, StageKind::Sample(_)));
        let hint = suggest::hint(name, names.map(|stage| stage.name.as_str()));
        return Err(TrainError::stage(trainer.stage, format!("there is no sample stage \"{name}\""), hint));
    };
    let cases = trainer.task.cases(Split::Train, sampled.cases, trainer.recipe.seed)?;
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

impl Trainer<'_> {
    /// Steps already done of a stage whose every step ends with a commit; its meters are restored.
    ///
    /// # Errors
    /// A checkpoint that cannot be understood.
    pub(crate) fn resume_between_steps(&mut self) -> Result<u64, TrainError> {
        let Some(committed) = self.resume.take() else { return Ok(0) };
        let state = self.read_state(committed)?;
        self.meters = state.meters;
        self.cursor = state.cursor;
        Ok(committed.step())
    }

    /// Commits a step of such a stage.
    pub(crate) fn commit_step(&self, step: u64) -> Result<(), TrainError> {
        let state = self.state(false, 0, None);
        let stage = self.stage.to_string();
        Ok(self.run.commit(Checkpoint {
            stage_index: self.index,
            stage,
            step,
            blobs: Vec::new(),
            state,
            ends_stage: false,
        })?)
    }
}
