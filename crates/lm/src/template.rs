//! Chat templates: they render a conversation to text in the form on which a model was trained, as `transformers` does.
//!
//! A template is a Jinja program that comes with the model. [`ChatTemplate::render`] gives its text.
//! [`ChatTemplate::encode`] gives token ids. It guarantees that the words of a user or a tool never become a special
//! token, not even in part, while the template's own markup does. Words are followed through the template
//! (`marks.rs`), so it makes no difference how it cuts and joins them.
//!
//! Templates expect Python, so its behaviour is imitated: blocks are trimmed, `tojson` writes as `json.dumps` does,
//! `None` and `True` print as in Python, strings have Python's methods, and `raise_exception` and `strftime_now` exist.
//! There are two differences from `transformers`: `strftime_now` gives UTC, and a caller can fix the time
//! ([`Chat::now`]).
//!
//! A template is not trusted. Its length, its work and its output are limited (`engine.rs`, `source.rs`).
//!
//! A conversation is never changed, and no system prompt is added.
//!
//! Read next: [`crate::tokenizer`].

mod clock;
mod conversation;
mod engine;
mod json;
mod marks;
mod source;

use crate::error::FormatError;
use crate::tokenizer::Tokenizer;
use conversation::{Marker, is_trusted};
use minijinja::value::{Serde, Value};
use minijinja::{Environment, ErrorKind};
use serde_json::{Map, Value as Json};
use std::collections::HashSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A model's chat template, ready to render.
#[derive(Debug)]
pub struct ChatTemplate {
    path: PathBuf,
    environment: Environment<'static>,
    source: String,
    has_tool_template: bool,
    /// The texts in quotes, and the words that the templates name.
    literals: HashSet<String>,
    words: HashSet<String>,
    /// `bos_token`, `eos_token` and so on, as the template sees them.
    special: Map<String, Json>,
}

/// A conversation to be rendered.
#[derive(Debug, Clone, Default)]
pub struct Chat<'a> {
    /// Objects with `role` and `content`, and other fields that the template uses (`tool_calls`, `reasoning_content`
    /// …).
    pub messages: &'a [Json],
    /// JSON schemas of the functions that the model may call.
    pub tools: Option<&'a [Json]>,
    /// Whether to append the markup that opens the assistant's answer.
    pub add_generation_prompt: bool,
    /// Further variables, such as `enable_thinking`.
    pub variables: Map<String, Json>,
    /// The time that `strftime_now` gives; the current time if it is `None`. A run that must be repeatable sets it.
    pub now: Option<SystemTime>,
}

const DEFAULT: &str = "chat_template";
const TOOL_USE: &str = "tool_use";

impl ChatTemplate {
    /// The template of a Hugging Face folder: `chat_template.jinja`, or the field `chat_template` of
    /// `tokenizer_config.json`. The field is a text or a list of named texts (`default`, `tool_use`). Returns
    /// `Ok(None)` if there is no template.
    ///
    /// # Errors
    /// [`FormatError::Io`], or [`FormatError::Malformed`] for a template that does not parse.
    pub fn open_folder(folder: &Path) -> Result<Option<Self>, FormatError> {
        let config_path = folder.join("tokenizer_config.json");
        let mut fields = Map::new();
        if config_path.exists() {
            let text = std::fs::read_to_string(&config_path).map_err(FormatError::io(&config_path, "read"))?;
            fields = serde_json::from_str(&text).map_err(|error| {
                FormatError::malformed(
                    &config_path,
                    error.to_string(),
                    "correct the file, or take it from the model's release",
                )
            })?;
        }
        let jinja_path = folder.join("chat_template.jinja");
        if jinja_path.exists() {
            let source = std::fs::read_to_string(&jinja_path).map_err(FormatError::io(&jinja_path, "read"))?;
            return Self::new(source, None, &fields, &jinja_path).map(Some);
        }
        match fields.get("chat_template") {
            None | Some(Json::Null) => Ok(None),
            Some(Json::String(source)) => Self::new(source.clone(), None, &fields, &config_path).map(Some),
            Some(Json::Array(list)) => {
                let named = |name: &str| {
                    let entry = list.iter().find(|entry| entry["name"] == name)?;
                    Some(entry["template"].as_str()?.to_string())
                };
                let default = named("default").ok_or_else(|| {
                    let hint = "name one of the templates `default`";
                    FormatError::malformed(&config_path, "chat_template: no template is named `default`", hint)
                })?;
                Self::new(default, named("tool_use"), &fields, &config_path).map(Some)
            }
            Some(_) => {
                let problem = "chat_template is neither a text nor a list of named texts";
                Err(FormatError::malformed(
                    &config_path,
                    problem,
                    "correct the file, or take it from the model's release",
                ))
            }
        }
    }

    /// A template from its source.
    ///
    /// * `tool_use`: the template for conversations with tools, if there is a separate one.
    /// * `fields`: the fields of `tokenizer_config.json`, for the special tokens that templates print.
    /// * `path`: where the template came from; messages name it.
    ///
    /// # Errors
    /// [`FormatError::Malformed`] for a source that is too long or, with the line, one that does not parse.
    pub fn new(
        source: String,
        tool_use: Option<String>,
        fields: &Map<String, Json>,
        path: &Path,
    ) -> Result<Self, FormatError> {
        let mut environment = engine::environment();
        let has_tool_template = tool_use.is_some();
        let templates = [(DEFAULT, Some(source.clone())), (TOOL_USE, tool_use)];
        let (mut literals, mut words) = (HashSet::new(), HashSet::new());
        for (name, source) in templates.into_iter().filter_map(|(name, source)| Some((name, source?))) {
            let prepared = source::prepare(&source).map_err(|problem| {
                let hint = "take the template from the model's release";
                FormatError::malformed(path, format!("the chat template is refused: {problem}"), hint)
            })?;
            let added = engine::with_stack(|| environment.add_template_owned(name, prepared.text));
            added.and_then(|added| added.map_err(|error| error.to_string())).map_err(|problem| {
                let problem = format!("the chat template does not parse: {problem}");
                FormatError::malformed(path, problem, "take the template from the model's release")
            })?;
            words.extend(conversation::words(&source, &prepared.literals));
            literals.extend(prepared.literals);
        }
        let mut special = Map::new();
        for name in ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"] {
            if let Some(text) = fields.get(name).and_then(|token| token.as_str().or_else(|| token["content"].as_str()))
            {
                special.insert(name.into(), text.into());
            }
        }
        Ok(Self { path: path.to_path_buf(), environment, source, has_tool_template, literals, words, special })
    }

    /// The source of the default template, as it was read.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Renders a conversation as `transformers`' `apply_chat_template(…, tokenize=False)` does.
    ///
    /// Use [`ChatTemplate::encode`] to get token ids: in the rendered text, a user's words cannot be distinguished from
    /// markup.
    ///
    /// # Errors
    /// [`FormatError::Template`] for a conversation without messages, and when the template calls `raise_exception`,
    /// fails, or takes too much work or memory.
    pub fn render(&self, chat: &Chat) -> Result<String, FormatError> {
        if chat.messages.is_empty() {
            return Err(self.refusal("it has no message", "give at least one message"));
        }
        let mut variables = self.special.clone();
        variables.extend(chat.variables.clone());
        variables.insert("messages".into(), chat.messages.into());
        variables.insert("tools".into(), chat.tools.map_or(Json::Null, |tools| tools.into()));
        variables.insert("documents".into(), Json::Null);
        variables.insert("add_generation_prompt".into(), chat.add_generation_prompt.into());
        let now = chat.now.unwrap_or_else(SystemTime::now);
        let name = if self.has_tool_template && chat.tools.is_some() { TOOL_USE } else { DEFAULT };
        let template = self.environment.get_template(name).expect("added by the constructor");
        let strftime_now = Value::from_function(move |format: &str| clock::strftime(now, format));
        let context = minijinja::context! { strftime_now, ..Value::from(Serde(variables)) };
        let rendered = engine::with_stack(|| {
            template.render(context).map_err(|error| match error.kind() {
                ErrorKind::OutOfFuel => "it takes too much work or memory".to_string(),
                _ => error.detail().map_or_else(|| error.to_string(), str::to_string),
            })
        });
        match rendered.flatten() {
            Ok(text) if text.len() > engine::MOST_OUTPUT_BYTES => {
                let problem = format!("it becomes {} bytes, more than {}", text.len(), engine::MOST_OUTPUT_BYTES);
                Err(self.refusal(problem, "shorten the messages"))
            }
            Ok(text) => Ok(text),
            Err(problem) => {
                Err(self.refusal(problem, "check roles and their order, and that every message has `content`"))
            }
        }
    }

    fn refusal(&self, problem: impl Into<String>, hint: &'static str) -> FormatError {
        FormatError::Template { path: self.path.clone(), problem: problem.into(), hint }
    }

    /// Renders a conversation and encodes it. The words of every role except `system`, `developer` and `assistant`, and
    /// those of the tools, never become special or added tokens, not even in part.
    ///
    /// If no message spells such a token, the ids are those of `transformers`.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`]. Also [`FormatError::Template`] when it depends on a user's words which way the
    /// template takes, so that they cannot be followed through it.
    pub fn encode(&self, tokenizer: &Tokenizer, chat: &Chat) -> Result<Vec<u32>, FormatError> {
        let chat = Chat { now: Some(chat.now.unwrap_or_else(SystemTime::now)), ..chat.clone() };
        let text = self.render(&chat)?;
        let untrusted = self.untrusted(tokenizer, &chat, &text)?;
        Ok(tokenizer.encode_except(&text, &untrusted))
    }

    /// The bytes of a rendered text that come from untrusted messages or tools.
    fn untrusted(&self, tokenizer: &Tokenizer, chat: &Chat, text: &str) -> Result<Vec<Range<usize>>, FormatError> {
        if chat.tools.is_none() && chat.messages.iter().all(is_trusted) {
            return Ok(Vec::new());
        }
        let tokens = tokenizer.added_tokens();
        // If the template looks for one of its own literals with an operator, the literal stays as it is.
        for spared in [&HashSet::new(), &self.literals] {
            let marker = Marker { words: &self.words, spared, tokens: &tokens };
            let messages = marker.messages(chat.messages);
            let tools: Option<Vec<Json>> =
                chat.tools.map(|tools| tools.iter().map(|tool| marker.value(tool)).collect());
            let marked = self.render(&Chat { messages: &messages, tools: tools.as_deref(), ..chat.clone() });
            if let Some(ranges) = marked.ok().and_then(|marked| marks::differences(text, &marked)) {
                return Ok(ranges);
            }
        }
        let problem = "it treats a message's words in a way in which they cannot be told from its own markup";
        Err(self.refusal(problem, "leave special tokens, and the template's own words, out of the message"))
    }
}

#[cfg(test)]
mod tests;
