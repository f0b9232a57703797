//! Between text and tokens, for training and sampling alike.
//!
//! A prompt is encoded once, by the template where the model has one and as plain text where it has none; a completion is
//! encoded by itself and ends with the end token. So the boundary between the two never moves, and what a rollout's
//! token ids say is what is trained: text that was sampled is never encoded again.

use lm::generate::Sampling;
use lm::template::{Chat, ChatTemplate};
use lm::tokenizer::Tokenizer;
use serde_json::json;

use crate::error::TrainError;
use crate::tasks::Prompt;

/// A tokenizer, its template, and the tokens that end a completion.
pub struct Codec {
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// The chat template, where the model has one.
    pub template: Option<ChatTemplate>,
    /// Tokens that end a completion; the first is the one that is trained.
    pub end_tokens: Vec<u32>,
}

impl Codec {
    /// A codec; `end_tokens` beside the tokenizer's own are those of a model's generation settings.
    ///
    /// # Errors
    /// [`TrainError::NoEndToken`] when there is none: a completion that cannot end cannot be graded.
    pub fn new(tokenizer: Tokenizer, template: Option<ChatTemplate>, end_tokens: &[u32]) -> Result<Codec, TrainError> {
        let mut ends: Vec<u32> = tokenizer.special().eos.into_iter().collect();
        ends.extend(end_tokens.iter().filter(|token| Some(**token) != tokenizer.special().eos));
        if ends.is_empty() {
            return Err(TrainError::NoEndToken);
        }
        Ok(Codec { tokenizer, template, end_tokens: ends })
    }

    /// A prompt's token ids.
    ///
    /// # Errors
    /// A template that fails, or messages for a model without a template.
    pub fn prompt(&self, prompt: &Prompt) -> Result<Vec<u32>, TrainError> {
        let messages = match (prompt, &self.template) {
            (Prompt::Text(text), None) => {
                let bos = self.tokenizer.special().bos;
                return Ok(bos.into_iter().chain(self.tokenizer.encode_user(text)).collect());
            }
            (Prompt::Messages(_), None) => return Err(TrainError::NoTemplate),
            (Prompt::Text(text), Some(_)) => vec![json!({ "role": "user", "content": text })],
            (Prompt::Messages(messages), Some(_)) => {
                messages.iter().map(|m| json!({ "role": m.role, "content": m.content })).collect()
            }
        };
        let template = self.template.as_ref().expect("matched above");
        let text = template.render(&Chat { messages: &messages, add_generation_prompt: true, ..Chat::default() })?;
        Ok(self.tokenizer.encode(&text))
    }

    /// A completion's token ids, the end token included.
    pub fn completion(&self, text: &str) -> Vec<u32> {
        let mut tokens = self.tokenizer.encode(text);
        tokens.push(self.end_tokens[0]);
        tokens
    }

    /// A document's token ids, the end token included.
    pub fn document(&self, text: &str) -> Vec<u32> {
        let bos = self.tokenizer.special().bos;
        let ids = self.tokenizer.encode_user(text);
        bos.into_iter().chain(ids).chain([self.end_tokens[0]]).collect()
    }

    /// The text of sampled tokens without the end token, and whether there was one.
    pub fn text(&self, tokens: &[u32]) -> (String, bool) {
        match tokens.split_last() {
            Some((last, rest)) if self.end_tokens.contains(last) => (self.tokenizer.decode(rest, false), true),
            _ => (self.tokenizer.decode(tokens, false), false),
        }
    }
}

/// Sampling as reinforcement learning and evaluation at a temperature need it: nothing is cut off.
pub fn plain_sampling(temperature: f32) -> Sampling {
    Sampling { temperature, ..Sampling::default() }
}
