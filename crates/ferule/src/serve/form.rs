//! Turns messages into a prompt: by the model's chat template or, without one, as one question.

use lm::FormatError;
use lm::template::{Chat, ChatTemplate};
use lm::tokenizer::Tokenizer;
use serde_json::Value;
use tasks::registry;

use super::problem::Problem;

/// How messages become a prompt.
pub enum Form {
    /// By the model's chat template.
    Template(Box<ChatTemplate>),
    /// One question at a time: in the form of the task of the run that made the model, or unchanged if there is no
    /// task.
    Question(Option<toml::Table>),
}

impl Form {
    /// The token ids of messages.
    ///
    /// * `fits`: refuses a text that has certainly more tokens than the context, from its length in bytes. It saves the
    ///   memory that a tokenizer needs, a hundred times the text.
    ///
    /// # Errors
    /// A template that refuses them; for a model without a template, anything but one user message.
    pub fn prompt(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Value],
        fits: impl Fn(usize) -> Result<(), Problem>,
    ) -> Result<Vec<u32>, Problem> {
        let refuse = |why: String| Problem::wrong("messages", why);
        match self {
            Form::Template(template) => {
                let chat = Chat { messages, add_generation_prompt: true, ..Chat::default() };
                let explain = |error| match error {
                    // The client must not learn the template's path on this machine.
                    FormatError::Template { problem, hint, .. } => {
                        refuse(format!("the chat template refuses the messages: {problem}; {hint}"))
                    }
                    other => Problem::failed(other.to_string()),
                };
                let given = messages.iter().filter_map(|message| message["content"].as_str()).map(str::len).sum();
                if fits(given).is_err() {
                    // A template may leave some of it out.
                    fits(template.render(&chat).map_err(explain)?.len())?;
                }
                template.encode(tokenizer, &chat).map_err(explain)
            }
            Form::Question(task) => {
                let question = match messages {
                    [only] if only["role"] == "user" => only["content"].as_str().unwrap_or_default(),
                    _ => {
                        let why = "this model has no chat template and knows no conversation: send one message with the role user, \
                                   without a system message and without earlier turns";
                        return Err(refuse(why.into()));
                    }
                };
                let asked = task.as_ref().map(|task| registry::question(task, question)).transpose();
                let asked = asked.map_err(|refusal| refuse(refusal.to_string()))?;
                let text = asked.as_deref().unwrap_or(question);
                fits(text.len())?;
                Ok(tokenizer.special().bos.into_iter().chain(tokenizer.encode_user(text)).collect())
            }
        }
    }
}
