//! Marks the untrusted texts of a conversation; see `marks.rs`.

use std::collections::HashSet;

use serde_json::{Map, Value as Json};

use super::marks::marked;

/// Roles that a message may have. Templates build markup from them, such as `<|user|>`.
const ROLES: [&str; 8] = ["user", "tool", "function", "ipython", "observation", "system", "developer", "assistant"];

/// Whether a message comes from the program or the model, and not from a user or a tool.
pub fn is_trusted(message: &Json) -> bool {
    matches!(message["role"].as_str(), Some("system" | "developer" | "assistant"))
}

/// Marks texts. Words that the template itself names stay as they are: a template compares types and keys with them.
pub struct Marker<'a> {
    /// Words that stay as they are.
    pub words: &'a HashSet<String>,
    /// Texts that stay as they are inside other texts, unless they spell a token.
    pub spared: &'a HashSet<String>,
    /// The texts of the tokens that no message may spell.
    pub tokens: &'a [String],
}

impl Marker<'_> {
    /// Messages with those that are not trusted marked.
    pub fn messages(&self, messages: &[Json]) -> Vec<Json> {
        messages
            .iter()
            .map(|message| if is_trusted(message) { message.clone() } else { self.message(message) })
            .collect()
    }

    fn message(&self, message: &Json) -> Json {
        let mut marked = self.value(message);
        let role = message["role"].as_str().filter(|role| ROLES.contains(role));
        if let (Some(role), Some(fields)) = (role, marked.as_object_mut()) {
            fields.insert("role".into(), role.into());
        }
        marked
    }

    /// A value with all texts in it marked, keys included.
    pub fn value(&self, value: &Json) -> Json {
        match value {
            Json::String(text) => self.text(text).into(),
            Json::Array(items) => items.iter().map(|item| self.value(item)).collect(),
            Json::Object(fields) => {
                Map::from_iter(fields.iter().map(|(key, value)| (self.text(key), self.value(value)))).into()
            }
            other => other.clone(),
        }
    }

    fn text(&self, text: &str) -> String {
        if self.words.contains(text) {
            return text.to_string();
        }
        let mut spared = vec![false; text.len()];
        for literal in self.spared.iter().filter(|literal| literal.len() > 1) {
            for (at, _) in text.match_indices(literal.as_str()) {
                spared[at..at + literal.len()].fill(true);
            }
        }
        for token in self.tokens.iter().filter(|token| !token.is_empty()) {
            for (at, _) in text.match_indices(token.as_str()) {
                if !spared[at..at + token.len()].contains(&false) {
                    spared[at..at + token.len()].fill(false);
                }
            }
        }
        text.char_indices().map(|(at, c)| if spared[at] { c } else { marked(c) }).collect()
    }
}

/// The words that a template names: in quotes, or as a field after a point.
///
/// * `literals`: the texts in quotes.
pub fn words(source: &str, literals: &HashSet<String>) -> HashSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let fields = source.split('.').skip(1).map(|after| after.split(|c| !is_part(c)).next().unwrap_or_default());
    let literals = literals.iter().map(String::as_str).filter(|literal| literal.chars().all(is_part));
    fields.chain(literals).filter(|word| !word.is_empty()).map(str::to_string).collect()
}
