//! Chat templates: they render a conversation to text in the form on which a model was trained, as `transformers` does.
//!
//! A template is a Jinja program that comes with the model. [`ChatTemplate::render`] gives its text.
//! [`ChatTemplate::encode`] gives token ids. It guarantees that the words of a user or a tool never become a special
//! token, even if they spell one, while the template's own markup does.
//!
//! Templates expect Python, so its behaviour is imitated: blocks are trimmed, `tojson` writes as `json.dumps` does,
//! `None` and `True` print as in Python, strings have Python's methods, and `raise_exception` and `strftime_now` exist.
//! There are two differences from `transformers`: `strftime_now` gives UTC, and a caller can fix the time
//! ([`Chat::now`]).
//!
//! A conversation is never changed, and no system prompt is added.
//!
//! Read next: [`crate::tokenizer`].

mod clock;
mod json;

use crate::error::FormatError;
use crate::tokenizer::Tokenizer;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value};
use minijinja::{Environment, ErrorKind};
use serde_json::{Map, Value as Json};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A model's chat template, ready to render.
#[derive(Debug)]
pub struct ChatTemplate {
    path: PathBuf,
    environment: Environment<'static>,
    source: String,
    has_tool_template: bool,
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
    /// [`FormatError::Malformed`], with the line, for a source that does not parse.
    pub fn new(
        source: String,
        tool_use: Option<String>,
        fields: &Map<String, Json>,
        path: &Path,
    ) -> Result<Self, FormatError> {
        let mut environment = environment();
        let has_tool_template = tool_use.is_some();
        let templates = [(DEFAULT, Some(source.clone())), (TOOL_USE, tool_use)];
        for (name, source) in templates.into_iter().filter_map(|(name, source)| Some((name, source?))) {
            environment.add_template_owned(name, without_generation_tags(&source)).map_err(|error| {
                let problem = format!("the chat template does not parse: {error}");
                FormatError::malformed(path, problem, "take the template from the model's release")
            })?;
        }
        let mut special = Map::new();
        for name in ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"] {
            if let Some(text) = fields.get(name).and_then(|token| token.as_str().or_else(|| token["content"].as_str()))
            {
                special.insert(name.into(), text.into());
            }
        }
        Ok(Self { path: path.to_path_buf(), environment, source, has_tool_template, special })
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
    /// [`FormatError::Template`] for a conversation without messages, and when the template calls `raise_exception` or
    /// fails.
    pub fn render(&self, chat: &Chat) -> Result<String, FormatError> {
        if chat.messages.is_empty() {
            let (problem, hint) = ("it has no message".to_string(), "give at least one message");
            return Err(FormatError::Template { path: self.path.clone(), problem, hint });
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
        template.render(context).map_err(|error| {
            let problem = error.detail().map_or_else(|| error.to_string(), str::to_string);
            let hint = "check roles and their order, and that every message has `content`";
            FormatError::Template { path: self.path.clone(), problem, hint }
        })
    }

    /// Renders a conversation and encodes it. The words of every role except `system`, `developer` and `assistant`
    /// never become special or added tokens.
    ///
    /// If no message spells such a token, the ids are those of `transformers`.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`]. Also [`FormatError::Template`] when a message spells a special token and the
    /// template splits the message.
    pub fn encode(&self, tokenizer: &Tokenizer, chat: &Chat) -> Result<Vec<u32>, FormatError> {
        let added = tokenizer.added_tokens();
        let spells_one = |text: &str| added.iter().any(|token| text.contains(token));
        if !chat.messages.iter().any(|message| !is_trusted(message) && any_text(&message["content"], &spells_one)) {
            return Ok(tokenizer.encode(&self.render(chat)?));
        }
        let fail =
            |problem: &str, hint| FormatError::Template { path: self.path.clone(), problem: problem.into(), hint };
        // Untrusted words are marked by two code points that Unicode reserves for a program's own use.
        let all = Json::from(chat.messages).to_string();
        let mut free = ('\u{fdd0}'..='\u{fdef}').filter(|&mark| !all.contains(mark));
        let (Some(open), Some(close)) = (free.next(), free.next()) else {
            return Err(fail("it contains all of U+FDD0 to U+FDEF", "remove these noncharacters from the text"));
        };
        let mut messages = chat.messages.to_vec();
        for message in messages.iter_mut().filter(|message| !is_trusted(message)) {
            each_text(&mut message["content"], &|text| {
                if spells_one(text) {
                    *text = format!("{open}{text}{close}");
                }
            });
        }
        let rendered = self.render(&Chat { messages: &messages, ..chat.clone() })?;
        let mut ids = Vec::new();
        let mut rest = rendered.as_str();
        while let Some((before, after)) = rest.split_once(open) {
            let taken_apart = "a message that spells a special token is taken apart by the template";
            let Some((inside, after)) = after.split_once(close).filter(|(inside, _)| !inside.contains(open)) else {
                return Err(fail(taken_apart, "remove the special token from the message"));
            };
            ids.extend(tokenizer.encode(before));
            ids.extend(tokenizer.encode_user(inside));
            rest = after;
        }
        if rest.contains(close) {
            let problem = "a message that spells a special token is taken apart by the template";
            return Err(fail(problem, "remove the special token from the message"));
        }
        ids.extend(tokenizer.encode(rest));
        Ok(ids)
    }
}

/// Whether a message comes from the program or the model, and not from a user or a tool.
fn is_trusted(message: &Json) -> bool {
    matches!(message["role"].as_str(), Some("system" | "developer" | "assistant"))
}

fn any_text(content: &Json, test: &dyn Fn(&str) -> bool) -> bool {
    match content {
        Json::String(text) => test(text),
        Json::Array(parts) => parts.iter().any(|part| any_text(part, test)),
        Json::Object(fields) => fields.values().any(|field| any_text(field, test)),
        _ => false,
    }
}

fn each_text(content: &mut Json, change: &dyn Fn(&mut String)) {
    match content {
        Json::String(text) => change(text),
        Json::Array(parts) => parts.iter_mut().for_each(|part| each_text(part, change)),
        Json::Object(fields) => fields.values_mut().for_each(|field| each_text(field, change)),
        _ => {}
    }
}

/// The template engine, configured as `transformers` configures Jinja.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("the default delimiters are valid"));
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_formatter(|output, state, value| match value.kind() {
        minijinja::value::ValueKind::None => output.write_str("None").map_err(Into::into),
        minijinja::value::ValueKind::Bool => {
            output.write_str(if value.is_true() { "True" } else { "False" }).map_err(Into::into)
        }
        _ => minijinja::escape_formatter(output, state, value),
    });
    environment.add_filter("tojson", |value: Value, options: Kwargs| json::dumps(&value, &options));
    environment.add_function("raise_exception", |message: String| -> Result<Value, minijinja::Error> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
    });
    environment
}

/// `{% generation %}` marks the assistant's words, for a mask that Ferule does not take from templates. The tag is
/// replaced by a block that is always entered, so the text is the same.
fn without_generation_tags(source: &str) -> String {
    let mut result = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(len) = rest[start..].find("%}") else { break };
        let inside = &rest[start + 2..start + len];
        let word = inside.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        result.push_str(&rest[..start + 2]);
        match word {
            "generation" => result.push_str(&inside.replace(word, "if true")),
            "endgeneration" => result.push_str(&inside.replace(word, "endif")),
            _ => result.push_str(inside),
        }
        rest = &rest[start + len..];
    }
    result + rest
}

#[cfg(test)]
mod tests;
