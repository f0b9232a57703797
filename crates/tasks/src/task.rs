//! What a task is: a source of cases with its corpus, its demonstrations and its scores.
//!
//! Read next: [`crate::rewards`], then one task, such as [`crate::countdown`].

use std::path::Path;

use kernels::rng::Key;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::case::{Case, Completion, Grade, Prompt, Split};
use crate::environment::Environment;
use crate::partition;
use crate::refusal::Refusal;
use crate::rewards::RuleSet;

/// A source of cases with its corpus, demonstrations and scores.
pub trait Task: Send + Sync {
    /// The name by which a recipe calls it.
    fn name(&self) -> &str;

    /// The first `n` cases of a split; all of them where a file holds fewer.
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

    /// What a text that is trained on must not hold: the words of held-out and validation cases, without what the task puts
    /// around them. A file gives all of them; a generator, whose cases do not end, the first `n` of each split.
    ///
    /// # Errors
    /// As [`Task::cases`]; a split without cases is none.
    fn kept_out(&self, n: usize, seed: u64) -> Result<Vec<String>, TaskError> {
        let mut words = Vec::new();
        for split in [Split::Heldout, Split::HeldoutUnseen, Split::Validation] {
            match self.cases(split, n, seed) {
                Ok(cases) => words.extend(cases.iter().map(Case::prompt_text)),
                Err(TaskError::EmptySplit(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(words)
    }

    /// A prompt from elsewhere, such as a file of preferences, as the task would ask it: with what it puts around the prompts of its own cases.
    /// Also the id that a case with this prompt has.
    fn asked(&self, prompt: &Prompt) -> (String, Prompt) {
        (partition::id(&serde_json::json!(prompt).to_string()), prompt.clone())
    }

    /// What a person should know of the task's files (cases left out, facts cut), one sentence each.
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
    /// An arm that there is not, or rules of a recipe that cannot be built.
    fn rules(&self, arm: &str) -> Result<RuleSet, TaskError>;
}

/// The most cases that are searched for those that have a text.
const MOST_SEARCHED: usize = 1 << 20;

/// The first `n` training cases for which `written` has a text, each with its text; fewer where the task has no more. A file
/// may hold cases without one in between.
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

/// A task that a recipe can name.
pub trait Configured: Task + Sized + 'static {
    /// The name in recipes.
    const NAME: &'static str;
    /// What it is, in a sentence.
    const SUMMARY: &'static str;
    /// The arms that [`Task::rules`] has.
    const ARMS: &'static [&'static str];
    /// Its keys in `[task]`, besides `name`.
    type Keys: JsonSchema + DeserializeOwned;

    /// The task with these keys, its files read; relative paths in them start at `folder`.
    ///
    /// # Errors
    /// A value that the keys' own ranges do not exclude, or a file that cannot be read, by its key; a bad line, by its file and
    /// number.
    fn build(keys: Self::Keys, folder: &Path) -> Result<Self, Refusal>;

    /// A person's own words as a prompt of the task. No file is read.
    fn question(_keys: &Self::Keys, text: &str) -> String {
        text.to_string()
    }
}

/// Why a task gives no cases or no rules.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// Something that a person wrote.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A split without a case, which some callers can do without.
    #[error(transparent)]
    EmptySplit(Refusal),
}

impl TaskError {
    /// A split without a case.
    pub fn empty_split(task: &str, split: Split, hint: &str) -> TaskError {
        TaskError::EmptySplit(Refusal::new(format!("the split {} is empty", split.name()), hint).in_task(task))
    }

    /// An arm that a task does not have.
    pub fn unknown_arm(task: &str, arm: &str, known: &[&str]) -> TaskError {
        let hint = format!("choose one of: {}", known.join(", "));
        Refusal::new(format!("{task} has no arm `{arm}`"), hint).into()
    }
}

impl From<TaskError> for Refusal {
    fn from(error: TaskError) -> Refusal {
        match error {
            TaskError::Refused(refusal) | TaskError::EmptySplit(refusal) => refusal,
        }
    }
}

/// A record that was withdrawn after its run had begun.
pub fn withdrawn(record: &str) -> Refusal {
    Refusal::new(
        format!("record {record} was withdrawn after this run began, which may have learned from it"),
        "a run under a new name leaves it out: add `--name`",
    )
}
