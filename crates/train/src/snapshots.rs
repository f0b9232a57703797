//! What a model writes to the same few prompts as it learns, kept for people to read.
//!
//! A few times in a stage the first prompts of its cases are answered, always with the likeliest token, and judged as the stage judges: by its
//! rules, or token by token by its teacher. Nothing is learned from these completions; they are metered like all others and stored under
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

/// After the stage's name, where its snapshots are stored.
pub const SUFFIX: &str = ".watched";
/// Looks between a stage's beginning and its end.
const LOOKS: u64 = 5;
/// Packed tokens that a teacher reads at a time.
const TOKENS_PER_BATCH: usize = 4096;

/// The prompts that a stage watches.
pub(crate) struct Snapshots<'a> {
    cases: &'a [Case],
    steps: u64,
    max_new_tokens: usize,
}

/// Who judges the completions of a snapshot.
pub(crate) enum Judge<'a, T: Real> {
    Rules(&'a RuleSet),
    Teacher(&'a mut dyn Teacher<T>),
}

impl<'a> Snapshots<'a> {
    /// Watches the first `prompts` of a stage's cases.
    pub(crate) fn new(cases: &'a [Case], prompts: usize, steps: u64, max_new_tokens: usize) -> Snapshots<'a> {
        Snapshots { cases: &cases[..cases.len().min(prompts)], steps, max_new_tokens }
    }

    /// Whether to look after `done` steps: at the beginning, at the end, and a few times between.
    pub(crate) fn is_due(&self, done: u64) -> bool {
        let is_time = done == self.steps || done.is_multiple_of(self.steps.div_ceil(LOOKS));
        is_time && !self.cases.is_empty()
    }

    /// Lets the model answer, has the answers judged, and stores them under `done` steps.
    ///
    /// # Errors
    /// As sampling and the store.
    pub(crate) fn look<T: Real>(
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
                logprobs = agreement(trainer.queue, teacher, &groups)?;
                None
            }
        };
        if rules.is_some_and(RuleSet::reads_answers) {
            let read = self.cases.iter().filter(|case| case.answer.is_some());
            let ids: Vec<&str> = read.map(|case| case.id.as_str()).collect();
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
fn agreement<T: Real>(
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
