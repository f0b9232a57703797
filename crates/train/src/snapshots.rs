//! Snapshots: a policy's completions of the same few prompts at several steps of its training, stored for people to read.
//!
//! A few times in a stage, the first prompts of its cases are completed greedily. The completions are scored as the stage scores its own:
//! by its rules, or token by token by its teacher. Nothing is trained on them. They are metered like all other completions and stored under
//! the stage's name with [`SUFFIX`].
//!
//! Read next: `ferule`'s report, which shows them.

use kernels::{Queue, Real};
use lm::Model;
use lm::generate::Sampling;
use lm::head::Targets;

use crate::error::TrainError;
use crate::packing::{Sequence, micro_batches};
use crate::prompting::Prompting;
use crate::rollout::{Group, Plan, sample};
use crate::rules;
use crate::teacher::Teacher;
use crate::trainer::Trainer;
use tasks::Case;
use tasks::rewards::{Judged, RuleSet};

/// Appended to a stage's name, it is the name under which the stage's snapshots are stored.
pub const SUFFIX: &str = ".watched";
/// Intervals between the snapshots of a stage.
const INTERVALS: u64 = 5;
/// Packed tokens in one forward pass of a teacher.
const TOKENS_PER_BATCH: usize = 4096;

/// The snapshots of a stage: their prompts, and when they are taken.
pub(crate) struct Snapshots<'a> {
    cases: &'a [Case],
    steps: u64,
    max_new_tokens: usize,
}

/// What scores the completions of a snapshot.
pub(crate) enum Judge<'a, T: Real> {
    Rules(&'a RuleSet),
    Teacher(&'a mut dyn Teacher<T>),
}

impl<'a> Snapshots<'a> {
    /// Snapshots of the first `prompts` of a stage's cases.
    pub(crate) fn new(cases: &'a [Case], prompts: usize, steps: u64, max_new_tokens: usize) -> Snapshots<'a> {
        Snapshots { cases: &cases[..cases.len().min(prompts)], steps, max_new_tokens }
    }

    /// Whether to take a snapshot after `done` steps: at the beginning, at the end, and a few times between.
    pub(crate) fn is_due(&self, done: u64) -> bool {
        let is_time = done == self.steps || done.is_multiple_of(self.steps.div_ceil(INTERVALS));
        is_time && !self.cases.is_empty()
    }

    /// Samples completions of the prompts, scores them, and stores them under `done` steps.
    ///
    /// # Errors
    /// As [`sample`], [`Teacher::logprobs`] and the store.
    pub(crate) fn take<T: Real>(
        &self,
        trainer: &mut Trainer,
        model: &mut Model<T>,
        prompting: &Prompting,
        done: u64,
        judge: Judge<T>,
    ) -> Result<(), TrainError> {
        let plan = Plan {
            samples: 1,
            sampling: Sampling::greedy(),
            max_new_tokens: self.max_new_tokens,
            key: trainer.key.word("watch"),
        };
        let groups = sample(trainer.queue, model, prompting, self.cases, &plan)?;
        trainer.meters.rollouts += groups.len() as u64;
        let (mut logprobs, mut rows) = (Vec::new(), Vec::new());
        let rules = match judge {
            Judge::Rules(rules) => Some(rules),
            Judge::Teacher(teacher) => {
                logprobs = teacher_logprobs(trainer.queue, teacher, &groups)?;
                None
            }
        };
        if rules.is_some_and(RuleSet::reads_answers) {
            let answered = self.cases.iter().filter(|case| case.answer.is_some());
            let ids: Vec<&str> = answered.map(|case| case.id.as_str()).collect();
            trainer.run.ledger().meter_answers(trainer.stage, &ids)?;
        }
        for group in &groups {
            let case = &self.cases[group.case];
            let judge = |rules: &RuleSet| {
                rules.judge(&case.prompt_text(), case.answer.as_deref(), &group.rollouts[0].completion())
            };
            let judged = rules.map_or_else(Judged::default, judge);
            let reward = judged.reward;
            rows.extend(rules::rows(case, group, &[judged], &[reward], &[None]));
        }
        rows.iter_mut().zip(logprobs).for_each(|(row, logprobs)| row.logprobs_teacher = Some(logprobs));
        Ok(trainer.run.write_rollouts(&format!("{}{SUFFIX}", trainer.stage), done, &rows)?)
    }
}

/// The teacher's log-probability of every token of each group's completion, in nats.
fn teacher_logprobs<T: Real>(
    queue: &Queue,
    teacher: &mut dyn Teacher<T>,
    groups: &[Group],
) -> Result<Vec<Vec<f32>>, TrainError> {
    let sequences: Vec<Sequence> =
        groups.iter().map(|group| Sequence::completion(&group.prompt, &group.rollouts[0].tokens)).collect();
    let mut logprobs = Vec::new();
    for (batch, weights) in micro_batches(&sequences, TOKENS_PER_BATCH, 1.0) {
        let targets = Targets::of(&batch, |t| weights[t] != 0.0);
        logprobs.extend(teacher.logprobs(queue, &batch, &targets, 1.0)?);
    }
    let mut rest = logprobs.into_iter();
    Ok(groups.iter().map(|group| rest.by_ref().take(group.rollouts[0].tokens.len()).collect()).collect())
}
