//! The trait of tasks: a source of cases with a corpus, demonstrations and scores.
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

/// A source of cases with a corpus, demonstrations and scores.
pub trait Task: Send + Sync {
    /// The name that a recipe uses.
    fn name(&self) -> &str;

    /// The first `n` cases of a split, or all of them if a file holds fewer.
    ///
    /// # Errors
    /// [`TaskError`] when a file cannot be read or the split has no cases at all.
    fn cases(&self, split: Split, n: usize, seed: u64) -> Result<Vec<Case>, TaskError>;

    /// A demonstration: the reasoning and answer that an expert would write for the case. It is metered as a label.
    fn demonstration(&self, case: &Case) -> Option<String>;

    /// The answer in the task's format with an empty chain of reasoning, for fine-tuning on bare answers.
    fn bare_answer(&self, case: &Case) -> Option<String>;

    /// Document `index` of the pretraining corpus; endless for generators, `None` past the end of a file.
    /// No document contains a held-out or validation case.
    fn corpus(&self, index: u64, seed: u64) -> Option<String>;

    /// The texts that no training text may contain: the words of held-out and validation cases, without what the task
    /// puts around them. A task on a file gives all of them. A generator has endless cases and gives the first `n` of
    /// each split.
    ///
    /// # Errors
    /// As [`Task::cases`], except that a split without cases is no error.
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

    /// Puts a prompt from elsewhere, such as a file of preferences, into the form of the task's own prompts. Also
    /// returns the id that a case with this prompt has.
    fn asked(&self, prompt: &Prompt) -> (String, Prompt) {
        (partition::id(&serde_json::json!(prompt).to_string()), prompt.clone())
    }

    /// What a person should know about the task's files (cases left out, facts cut), one sentence each.
    fn notices(&self) -> Vec<String> {
        Vec::new()
    }

    /// Why [`Task::grade`] cannot grade any completion of the case, for example because its answer is unknown; `None`
    /// if it can. Such a case is left out of every accuracy and is never counted as wrong.
    fn ungradable(&self, _case: &Case) -> Option<String> {
        None
    }

    /// The headline score of evaluation. It is strict, and it may use everything in the case.
    fn grade(&self, case: &Case, completion: &Completion) -> Grade;

    /// An episode of at most `turns` turns that begins at the case; `None` for a task without episodes.
    fn game(&self, _case: &Case, _turns: usize, _key: Key) -> Option<Box<dyn Environment>> {
        None
    }

    /// The rules that reward a policy by default, by arm: `answers` or `answer_free`.
    ///
    /// # Errors
    /// An unknown arm, or rules of a recipe that cannot be built.
    fn rules(&self, arm: &str) -> Result<RuleSet, TaskError>;
}

/// The largest number of cases that are searched for cases with a text.
const MOST_SEARCHED: usize = 1 << 20;

/// The first `n` training cases for which `written` has a text, each with its text; fewer if the task has no more.
/// Cases without a text may be between them.
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
    /// An invalid value that the keys' own ranges do not exclude, or a file that cannot be read, by its key; an invalid
    /// line, by its file and number.
    fn build(keys: Self::Keys, folder: &Path) -> Result<Self, Refusal>;

    /// Turns a user's text into a prompt of the task. No file is read.
    fn question(_keys: &Self::Keys, text: &str) -> String {
        text.to_string()
    }
}

/// Why a task has no cases or no rules.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// A fault in what the user wrote.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A split without a case. Some callers accept it.
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
