//! A case of a task, and what came of it: the prompt, the completion, the grade.
//!
//! Read next: [`crate::task`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::refusal::Refusal;

/// One case: a prompt, and what is known about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// A hexadecimal name from the BLAKE3 of the case's content. The order of data and random numbers derive from it.
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

    /// The split of that name.
    ///
    /// # Errors
    /// Another name; the hint has the four.
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
