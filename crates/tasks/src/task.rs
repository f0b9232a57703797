//! What a task is: a source of cases with its corpus, its demonstrations and its scores.
//!
//! Read next: [`crate::rewards`], then one task, such as [`crate::countdown`].

use std::path::PathBuf;

use kernels::rng::Key;

use crate::case::{Case, Completion, Grade, Split};
use crate::environment::Environment;
use crate::rewards::RuleSet;

impl Split {
    /// The split of that name.
    ///
    /// # Errors
    /// [`TaskError::UnknownSplit`] naming the four.
    pub fn parse(name: &str) -> Result<Split, TaskError> {
        Split::ALL
            .into_iter()
            .find(|split| split.name() == name)
            .ok_or_else(|| TaskError::UnknownSplit { name: name.to_string() })
    }
}

/// A source of cases with its corpus, demonstrations and scores.
pub trait Task: Send + Sync {
    /// The name by which a recipe calls it.
    fn name(&self) -> &str;

    /// The first `n` cases of a split. A file may hold fewer than `n`; then all of them come.
    ///
    /// # Errors
    /// [`TaskError`] when a file cannot be read or the split has no cases at all.
    fn cases(&self, split: Split, n: usize, seed: u64) -> Result<Vec<Case>, TaskError>;

    /// What an expert would write for the case, reasoning and answer: a demonstration, metered as a label.
    fn demonstration(&self, case: &Case) -> Option<String>;

    /// The answer in the task's format with an empty chain of reasoning, for fine-tuning on bare answers.
    fn bare_answer(&self, case: &Case) -> Option<String>;

    /// Document `index` of the pretraining corpus; endless for generators, `None` past the end of a file.
    /// No document contains a held-out or validation case.
    fn corpus(&self, index: u64, seed: u64) -> Option<String>;

    /// What a text that is trained on must not hold: the own words of held-out and validation cases, without what the task puts
    /// around them. All of a file's; of a generator, whose cases do not end, the first `n` of each split.
    ///
    /// # Errors
    /// As [`Task::cases`]; a split without cases is none.
    fn kept_out(&self, n: usize, seed: u64) -> Result<Vec<String>, TaskError> {
        let mut words = Vec::new();
        for split in [Split::Heldout, Split::HeldoutUnseen, Split::Validation] {
            match self.cases(split, n, seed) {
                Ok(cases) => words.extend(cases.iter().map(Case::prompt_text)),
                Err(TaskError::EmptySplit { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(words)
    }

    /// What a person should hear of the task's files: cases left out, facts cut. One sentence each.
    fn notices(&self) -> Vec<String> {
        Vec::new()
    }

    /// Why [`Task::grade`] cannot tell right from wrong for the case, whatever the completion: its answer is not known, say. Such a case
    /// is left out of every accuracy, and is never counted as wrong.
    fn ungradable(&self, _case: &Case) -> Option<String> {
        None
    }

    /// The headline score of evaluation. Strict, and it may read everything in the case.
    fn grade(&self, case: &Case, completion: &Completion) -> Grade;

    /// A game of `turns` that begins at the case; `None` for a task without games.
    fn game(&self, _case: &Case, _turns: usize, _key: Key) -> Option<Box<dyn Environment>> {
        None
    }

    /// The rules that reward a policy by default, by arm: `answers` or `answer_free`.
    ///
    /// # Errors
    /// [`TaskError::UnknownArm`] naming the arms that exist.
    fn rules(&self, arm: &str) -> Result<RuleSet, TaskError>;
}

/// More cases than this are not searched for one that has a text.
const MOST_SEARCHED: usize = 1 << 20;

/// The first `n` training cases for which `written` has a text, with it; fewer where the task has no more. A file may hold cases
/// without one in between.
///
/// # Errors
/// As [`Task::cases`].
pub fn first_written(
    task: &dyn Task,
    n: usize,
    seed: u64,
    written: impl Fn(&Case) -> Option<String>,
) -> Result<Vec<(Case, String)>, TaskError> {
    let mut asked = n;
    loop {
        let cases = task.cases(Split::Train, asked, seed)?;
        let exhausted = cases.len() < asked || asked > MOST_SEARCHED;
        let found = cases.into_iter().filter_map(|case| written(&case).map(|text| (case, text)));
        let found: Vec<(Case, String)> = found.take(n).collect();
        if found.len() == n || exhausted {
            return Ok(found);
        }
        asked *= 2;
    }
}

/// What can go wrong with a task.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// A file could not be read.
    #[error("{path}: {source}\nhint: {hint}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
        /// The mend.
        hint: String,
    },
    /// A line of a file is not what the task reads.
    #[error("{path}:{line}: {field}: {message}\nhint: {hint}")]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The field, or `line` when the whole line is meant.
        field: String,
        /// What is wrong with it.
        message: String,
        /// The mend.
        hint: String,
    },
    /// A split without a case.
    #[error("{task}: the split {split} is empty\nhint: {hint}", split = split.name())]
    EmptySplit {
        /// The task.
        task: String,
        /// The split.
        split: Split,
        /// The mend.
        hint: String,
    },
    /// A case that was withdrawn after its run had begun.
    #[error(
        "record {id} was withdrawn after this run began, which may have learned from it\nhint: a run under a new name leaves it out: add `--name`"
    )]
    Withdrawn {
        /// The record.
        id: String,
    },
    /// No arm of this name.
    #[error("{task} has no arm `{arm}`\nhint: choose one of: {}", known.join(", "))]
    UnknownArm {
        /// The task.
        task: String,
        /// The name that was asked for.
        arm: String,
        /// The arms that exist.
        known: Vec<String>,
    },
    /// No split of this name.
    #[error("no split `{name}`\nhint: choose one of: train, heldout, heldout_unseen, validation")]
    UnknownSplit {
        /// The name that was asked for.
        name: String,
    },
    /// A setting of the task that cannot hold.
    #[error("{task}: {field}: {message}\nhint: {hint}")]
    Setting {
        /// The task.
        task: String,
        /// The setting.
        field: String,
        /// What is wrong with it.
        message: String,
        /// The mend.
        hint: String,
    },
}
