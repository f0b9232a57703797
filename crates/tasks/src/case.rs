//! A case of a task, a completion of it, and the completion's grade.
//!
//! Read next: [`crate::task`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::refusal::Refusal;

/// One case: a prompt, and what is known about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// A hexadecimal id from the BLAKE3 of the case's content. The order of data and the random numbers are derived
    /// from it.
    pub id: String,
    /// What the model is asked.
    pub prompt: Prompt,
    /// The answer that the source of the case states, in the task's own notation; `None` if it is unknown.
    pub answer: Option<String>,
    /// Hidden facts of the case. Only evaluation and the trial of a rule may use it.
    pub record: serde_json::Value,
}

impl Case {
    /// The prompt as one text: a [`Prompt::Text`] unchanged, or the messages' contents joined by line breaks. This is
    /// what a rule sees; it contains nothing of a chat template.
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
    /// The message's text.
    pub content: String,
}

/// A part of a task's cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// For demonstrations and rollouts.
    Train,
    /// Never used in training. Drawn like the training cases.
    Heldout,
    /// Never used in training. It has wordings and ranges of figures that training and corpus never contain.
    HeldoutUnseen,
    /// For choosing a checkpoint and for tuning. It shares no case with the held-out parts.
    Validation,
}

impl Split {
    /// All splits, in the order of their declaration.
    pub const ALL: [Split; 4] = [Split::Train, Split::Heldout, Split::HeldoutUnseen, Split::Validation];

    /// The split with that name.
    ///
    /// # Errors
    /// An unknown name; the hint lists the four.
    pub fn parse(name: &str) -> Result<Split, Refusal> {
        Split::ALL.into_iter().find(|split| split.name() == name).ok_or_else(|| {
            let names = Split::ALL.map(Split::name).join(", ");
            Refusal::new(format!("no split `{name}`"), format!("choose one of: {names}"))
        })
    }

    /// The name used on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Heldout => "heldout",
            Split::HeldoutUnseen => "heldout_unseen",
            Split::Validation => "validation",
        }
    }
}

/// A completion as the sampler produced it.
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
    /// A completion that ended with its end token, for demonstrations and tests. `tokens` is its number of characters.
    pub fn finished(text: &'a str) -> Completion<'a> {
        Completion { text, finished: true, tokens: text.chars().count() }
    }
}

/// The score of one completion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Grade {
    /// The headline score: right or wrong.
    pub correct: bool,
    /// Named scores besides the headline, each in the unit that the task documents.
    pub parts: BTreeMap<String, f64>,
    /// Why, in a few words.
    pub reason: String,
    /// The answer in canonical form, which is a completion's vote in maj@k; `None` if there is no single answer.
    pub answer_key: Option<String>,
}
