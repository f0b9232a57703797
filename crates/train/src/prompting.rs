//! Turns prompts and completions into tokens and back, the same way for training and for sampling.
//!
//! A prompt is encoded once: by the chat template if the model has one, as plain text otherwise. A completion is encoded by itself and
//! ends with the end token. So the boundary between the two never moves. Sampled text is never encoded again: training uses the token ids
//! of the rollout.
//!
//! Completions follow the model's template. The end token that is trained is the one with which the template closes an answer. If the
//! template's prompt already opens `<think>`, completions are encoded without that tag, and their text is returned with it. Nothing that a
//! prompt or a demonstration spells becomes a special token.

use std::time::{Duration, SystemTime};

use lm::generate::Sampling;
use lm::template::{Chat, ChatTemplate};
use lm::tokenizer::Tokenizer;
use serde_json::{Value, json};

use crate::error::TrainError;
use tasks::{Message, Prompt};

/// The date that chat templates are given, in seconds after 1970: 26 July 2024. It is fixed, so that a run does not depend on the day.
const TODAY: Duration = Duration::from_secs(1_721_952_000);
const THINK: &str = "<think>";

/// A tokenizer, a chat template, and the tokens that end a completion.
pub struct Prompting {
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// The chat template, if the model has one.
    pub template: Option<ChatTemplate>,
    /// Tokens that end a completion; the first is the one that is trained.
    pub end_tokens: Vec<u32>,
    /// `<think>` with the white space after it, if the template's prompt ends with them.
    opened: Option<String>,
}

impl Prompting {
    /// Makes a prompting and collects its end tokens. The first is the token that closes an answer in the template. Then come the
    /// tokenizer's own end token, and `end_tokens`, those of the model's generation settings.
    ///
    /// # Errors
    /// [`TrainError::NoEndToken`] when there is none, since a completion that cannot end cannot be graded.
    pub fn new(
        tokenizer: Tokenizer,
        template: Option<ChatTemplate>,
        end_tokens: &[u32],
    ) -> Result<Prompting, TrainError> {
        let mut ends: Vec<u32> = Vec::new();
        let closing = template.as_ref().and_then(|template| closing(&tokenizer, template));
        for token in closing.into_iter().chain(tokenizer.special().eos).chain(end_tokens.iter().copied()) {
            if !ends.contains(&token) {
                ends.push(token);
            }
        }
        if ends.is_empty() {
            return Err(TrainError::NoEndToken);
        }
        let opened = template.as_ref().and_then(opened);
        Ok(Prompting { tokenizer, template, end_tokens: ends, opened })
    }

    /// Whether every token id stands for the same bytes in both tokenizers.
    pub fn same_vocabulary(&self, other: &Prompting) -> bool {
        let (a, b) = (&self.tokenizer, &other.tokenizer);
        a.vocab_size() == b.vocab_size() && (0..a.vocab_size() as u32).all(|id| a.token_bytes(id) == b.token_bytes(id))
    }

    /// A prompt's token ids.
    ///
    /// # Errors
    /// A template that fails, or messages for a model without a template.
    pub fn prompt(&self, prompt: &Prompt) -> Result<Vec<u32>, TrainError> {
        let messages = match (prompt, &self.template) {
            (Prompt::Text(text), None) => {
                return Ok(self.begin().into_iter().chain(self.tokenizer.encode_user(text)).collect());
            }
            (Prompt::Messages(_), None) => return Err(TrainError::NoTemplate),
            (Prompt::Text(text), Some(_)) => vec![json!({ "role": "user", "content": text })],
            (Prompt::Messages(messages), Some(_)) => {
                messages.iter().map(|m| json!({ "role": m.role, "content": m.content })).collect()
            }
        };
        let template = self.template.as_ref().expect("matched above");
        Ok(template.encode(&self.tokenizer, &chat(&messages, true))?)
    }

    /// The token ids of a prompt that follows a few examples, each a prompt with its answer. This is how a base model,
    /// which was never tuned to the task, is prompted.
    ///
    /// # Errors
    /// As [`Prompting::prompt`].
    pub fn few_shot(&self, examples: &[(&Prompt, &str)], prompt: &Prompt) -> Result<Vec<u32>, TrainError> {
        if self.template.is_some() {
            let mut messages = Vec::new();
            for (example, answer) in examples {
                messages.extend(messages_of(example));
                messages.push(Message { role: "assistant".into(), content: (*answer).into() });
            }
            messages.extend(messages_of(prompt));
            return self.prompt(&Prompt::Messages(messages));
        }
        let mut tokens = Vec::new();
        for (example, answer) in examples {
            // The token that begins a text is kept in the first part only.
            let from = if tokens.is_empty() { 0 } else { usize::from(self.tokenizer.special().bos.is_some()) };
            tokens.extend_from_slice(&self.prompt(example)?[from..]);
            tokens.extend(self.tokenizer.encode_markup(answer));
            tokens.extend(self.tokenizer.encode_user(EXAMPLE_END));
        }
        let from = if tokens.is_empty() { 0 } else { usize::from(self.tokenizer.special().bos.is_some()) };
        tokens.extend_from_slice(&self.prompt(prompt)?[from..]);
        Ok(tokens)
    }

    /// A completion's token ids, the end token included.
    pub fn completion(&self, text: &str) -> Vec<u32> {
        let text = match (&self.opened, text.strip_prefix(THINK)) {
            (Some(_), Some(rest)) => rest.trim_start(),
            _ => text,
        };
        let mut tokens = self.tokenizer.encode_markup(text);
        tokens.push(self.end_tokens[0]);
        tokens
    }

    /// A document's token ids, with the tokenizer's own end token and without [`Prompting::begin`]. Markup that the document spells is
    /// encoded as markup, as in a completion.
    pub fn document(&self, text: &str) -> Vec<u32> {
        let mut tokens = self.tokenizer.encode_markup(text);
        tokens.push(self.tokenizer.special().eos.unwrap_or(self.end_tokens[0]));
        tokens
    }

    /// The token that begins a text, if the tokenizer has one. Models that were trained with it attend to it, and get worse without it.
    pub fn begin(&self) -> Option<u32> {
        self.tokenizer.special().bos
    }

    /// The text of sampled tokens without the end token, and whether there was one.
    pub fn text(&self, tokens: &[u32]) -> (String, bool) {
        let (content, ended) = match tokens.split_last() {
            Some((last, rest)) if self.end_tokens.contains(last) => (rest, true),
            _ => (tokens, false),
        };
        let text = self.tokenizer.decode(content, false);
        (self.opened.clone().unwrap_or_default() + &text, ended)
    }
}

fn chat(messages: &[Value], add_generation_prompt: bool) -> Chat<'_> {
    Chat { messages, add_generation_prompt, now: Some(SystemTime::UNIX_EPOCH + TODAY), ..Chat::default() }
}

/// The special token that a template puts right after an answer; none if it puts no special token there.
fn closing(tokenizer: &Tokenizer, template: &ChatTemplate) -> Option<u32> {
    let answer = "Ferule";
    let messages = [json!({ "role": "user", "content": "?" }), json!({ "role": "assistant", "content": answer })];
    let text = template.render(&chat(&messages, false)).ok()?;
    let (_, behind) = text.rsplit_once(answer)?;
    tokenizer.encode(behind.trim_start()).first().copied().filter(|&token| tokenizer.is_special(token))
}

/// `<think>` and the white space after it, if a template's prompt ends with them.
fn opened(template: &ChatTemplate) -> Option<String> {
    let messages = [json!({ "role": "user", "content": "?" })];
    let text = template.render(&chat(&messages, true)).ok()?;
    let start = text.rfind(THINK).filter(|&start| text[start + THINK.len()..].trim().is_empty())?;
    Some(text[start..].to_string())
}

/// The separator after each example in a few-shot prompt of plain text.
pub const EXAMPLE_END: &str = "\n\n";

fn messages_of(prompt: &Prompt) -> Vec<Message> {
    match prompt {
        Prompt::Text(text) => vec![Message { role: "user".into(), content: text.clone() }],
        Prompt::Messages(messages) => messages.clone(),
    }
}

/// Sampling from the whole distribution at a temperature, without top-k, top-p or min-p. Reinforcement learning needs it, since the
/// trainer's log-probabilities are those of the whole distribution.
pub fn plain_sampling(temperature: f32) -> Sampling {
    Sampling { temperature, ..Sampling::default() }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use lm::tokenizer::TrainOptions;
    use serde_json::Map;

    use super::*;

    const CHAT: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
                        {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

    fn prompting(template: Option<&str>) -> Prompting {
        let markup_tokens = ["<think>", "</think>"].map(String::from).to_vec();
        let eos_token = "<|endoftext|>".to_string();
        let options = TrainOptions { vocab_size: 261, markup_tokens, eos_token, ..TrainOptions::default() };
        let tokenizer = Tokenizer::train(["a b c", "a b c"], &options, Path::new("recipe.toml")).unwrap();
        let template = template.map(|source| {
            ChatTemplate::new(source.into(), None, &Map::new(), Path::new("chat_template.jinja")).unwrap()
        });
        Prompting::new(tokenizer, template, &[]).unwrap()
    }

    fn id(prompting: &Prompting, token: &str) -> u32 {
        prompting.tokenizer.token_to_id(token).unwrap()
    }

    #[test]
    fn what_others_wrote_never_becomes_special() {
        let prompting = prompting(Some(CHAT));
        let count = |tokens: &[u32], token: &str| tokens.iter().filter(|&&t| t == id(&prompting, token)).count();
        let tokens = prompting.prompt(&Prompt::Text("a <|im_end|> b <|im_start|>".into())).unwrap();
        assert_eq!((count(&tokens, "<|im_start|>"), count(&tokens, "<|im_end|>")), (2, 1));
        let completion = "<think>a</think><|im_end|>b";
        let tokens = prompting.completion(completion);
        assert_eq!((count(&tokens, "<think>"), count(&tokens, "<|im_end|>")), (1, 1));
        assert_eq!(prompting.text(&tokens), (completion.to_string(), true));
        let document = prompting.document("a<|endoftext|>b");
        assert_eq!((count(&document, "<|endoftext|>"), count(&document, "<|im_end|>")), (1, 0));
        assert_eq!(document.last(), Some(&id(&prompting, "<|endoftext|>")));
    }

    #[test]
    fn the_token_that_closes_an_answer_is_the_one_trained() {
        let chat = prompting(Some(CHAT));
        assert_eq!(chat.end_tokens, [id(&chat, "<|im_end|>"), id(&chat, "<|endoftext|>")]);
        let plain = prompting(None);
        assert_eq!(plain.end_tokens, [id(&plain, "<|endoftext|>")]);
    }

    #[test]
    fn reasoning_that_the_template_opens_is_opened_once() {
        let prompting = prompting(Some(&CHAT.replace("assistant\n{% endif", "assistant\n<think>\n{% endif")));
        let prompt = prompting.prompt(&Prompt::Text("a".into())).unwrap();
        let completion = prompting.completion("<think>b</think>c");
        let think = id(&prompting, "<think>");
        assert!(prompt.contains(&think) && !completion.contains(&think));
        assert_eq!(prompting.text(&completion), ("<think>\nb</think>c".to_string(), true));
    }
}
