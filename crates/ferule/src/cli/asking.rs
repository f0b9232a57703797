//! Turns what a person types into a prompt: with the model's chat template or, if it has none, as plain text to be continued.
//!
//! A model that a run made is asked in the form of its task. It cannot hold a conversation, so each line is a prompt of its own.

use lm::template::{Chat, ChatTemplate};
use lm::tokenizer::Tokenizer;
use serde_json::{Map, Value, json};
use tasks::judgment::honest::HONEST_WORDS;
use tasks::registry;

use super::model_argument::OpenModel;
use crate::outcome::WrongUse;

/// How a model is prompted.
pub enum Asking {
    /// Messages that form a conversation.
    Conversation {
        template: Box<ChatTemplate>,
        system: Option<String>,
        messages: Vec<Value>,
        variables: Map<String, Value>,
    },
    /// Each line by itself, in the form of a task if one is known.
    Lines { task: Option<toml::Table> },
}

impl Asking {
    /// Chooses how to prompt a model.
    ///
    /// # Errors
    /// A system message or a template variable for a model without a template.
    pub fn of(open: &OpenModel, system: Option<&str>, variables: &[(String, Value)]) -> anyhow::Result<Asking> {
        if let Some(template) = open.checkpoint.template()? {
            let (system, variables) = (system.map(str::to_string), variables.iter().cloned().collect());
            let template = Box::new(template);
            let mut asking = Asking::Conversation { template, system, messages: Vec::new(), variables };
            asking.reset();
            return Ok(asking);
        }
        if system.is_some() || !variables.is_empty() {
            let problem = format!("{} has no chat template, so it takes no system message and no variables", open.name);
            return Err(WrongUse::error(
                problem,
                "leave out --system and --template-variable; the model only continues text",
            ));
        }
        Ok(Asking::Lines { task: open.task.clone() })
    }

    /// What a person should know before the first line.
    pub fn notes(&self) -> Vec<String> {
        let Asking::Lines { task } = self else { return Vec::new() };
        let name = task.as_ref().and_then(|task| task.get("name")?.as_str());
        let form =
            name.map_or("continued as it is".to_string(), |name| format!("asked in the form of the task {name}"));
        let mut notes =
            vec![format!("this model cannot hold a conversation: every line is {form}, without the lines before it")];
        if name == Some("judgment") {
            notes.push(HONEST_WORDS.to_string());
        }
        notes
    }

    /// Forgets the conversation.
    pub fn reset(&mut self) {
        if let Asking::Conversation { system, messages, .. } = self {
            *messages = system.iter().map(|text| json!({"role": "system", "content": text})).collect();
        }
    }

    /// The token ids of the prompt for `line`.
    ///
    /// # Errors
    /// A template that fails, a task that this version does not know.
    pub fn ask(&mut self, line: &str, tokenizer: &Tokenizer) -> anyhow::Result<Vec<u32>> {
        match self {
            Asking::Conversation { template, messages, variables, .. } => {
                messages.push(json!({"role": "user", "content": line}));
                let chat =
                    Chat { messages, add_generation_prompt: true, variables: variables.clone(), ..Chat::default() };
                Ok(template.encode(tokenizer, &chat)?)
            }
            Asking::Lines { task } => {
                let asked = task.as_ref().map(|task| registry::question(task, line)).transpose()?;
                let text = asked.unwrap_or_else(|| line.to_string());
                Ok(tokenizer.special().bos.into_iter().chain(tokenizer.encode_user(&text)).collect())
            }
        }
    }

    /// Adds the reply to the conversation or, without a reply, removes the line again.
    pub fn answered(&mut self, reply: Option<&str>) {
        let Asking::Conversation { messages, .. } = self else { return };
        match reply {
            Some(reply) => messages.push(json!({"role": "assistant", "content": reply})),
            None => drop(messages.pop()),
        }
    }
}
