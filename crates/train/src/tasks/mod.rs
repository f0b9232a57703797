//! Tasks: where prompts come from, what an expert would write, and how an answer is scored.
//!
//! A task is a generator or a reader of files. It knows its cases, its demonstrations, its pretraining corpus and
//! its headline score, and it names the rules that reward a policy by default. It never trains, samples or
//! encodes; tokens are the recipes' business. Three rules hold for every task:
//!
//! * **Determinism.** The same `(split, seed)` always gives the same list of cases; a larger `n` gives a longer
//!   list with the same head.
//! * **Disjoint splits.** Which split a case belongs to follows from its content alone, never from the seed, so
//!   that no seed can move a held-out case into training. The corpus holds no held-out case.
//! * **Hidden records.** [`Case::record`] is for evaluation and for the trial of a rule. A rule gets an
//!   [`Evidence`](crate::rewards::Evidence), which has no way to reach it.
//!
//! Read next: [`crate::rewards`], then one task.

pub mod countdown;
pub mod environment;
pub mod idiom_chain;
pub mod jsonl;
pub mod judgment;
pub mod partition;
pub mod registry;
pub mod withheld;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::rewards::RuleSet;
use crate::rng::Key;
use environment::Environment;

/// One case: a prompt, and what is known about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// Stable hexadecimal name derived by BLAKE3 from the case's content; the order of data and random numbers derive from it.
    pub id: String,
    /// What the model is asked.
    pub prompt: Prompt,
    /// The answer that the source of the case states, in the task's own notation; `None` where nobody knows it.
    pub answer: Option<String>,
    /// Hidden facts of the case. Only `eval` and a rule's trial may read it.
    pub record: serde_json::Value,
}

impl Case {
    /// The prompt as one text: a [`Prompt::Text`] as it is, the messages' contents joined by line breaks.
    /// This is what a rule sees; a chat template does not show here.
    pub fn prompt_text(&self) -> String {
        match &self.prompt {
            Prompt::Text(text) => text.clone(),
            Prompt::Messages(messages) => {
                let contents: Vec<&str> = messages.iter().map(|m| m.content.as_str()).collect();
                contents.join("\n")
            }
        }
    }
}

/// A prompt before any template: plain text, or the messages of a conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Prompt {
    /// Text that the model continues.
    Text(String),
    /// Messages for a chat template.
    Messages(Vec<Message>),
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What was said.
    pub content: String,
}

/// Which part of a task's cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// For demonstrations and rollouts.
    Train,
    /// Never met in training, drawn like the training cases.
    Heldout,
    /// Never met in training, with wordings and ranges of figures that training and corpus never contain.
    HeldoutUnseen,
    /// For choosing a checkpoint and tuning; apart from both held-out parts.
    Validation,
}

impl Split {
    /// All splits, in the order of their declaration.
    pub const ALL: [Split; 4] = [Split::Train, Split::Heldout, Split::HeldoutUnseen, Split::Validation];

    /// The name used on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Heldout => "heldout",
            Split::HeldoutUnseen => "heldout_unseen",
            Split::Validation => "validation",
        }
    }

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

/// A completion as the sampler left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion<'a> {
    /// The decoded text, without the end token.
    pub text: &'a str,
    /// Whether the end token was sampled; `false` when the completion was cut short.
    pub finished: bool,
    /// Its length in tokens, the end token included.
    pub tokens: usize,
}

impl<'a> Completion<'a> {
    /// A completion that ended by itself; `tokens` is taken as its number of characters. For demonstrations and tests.
    pub fn finished(text: &'a str) -> Completion<'a> {
        Completion { text, finished: true, tokens: text.chars().count() }
    }
}

/// The score of one completion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Grade {
    /// The headline: right or wrong.
    pub correct: bool,
    /// Named scores beside the headline, each in the unit that the task documents.
    pub parts: BTreeMap<String, f64>,
    /// Why, in a few words.
    pub reason: String,
    /// The answer in canonical form, by which completions vote in maj@k; `None` when there is no single answer.
    pub answer_key: Option<String>,
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
