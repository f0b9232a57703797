//! What can go wrong when a model is read from disk or written to it.
//!
//! Every message names the file and, where there is one, the field or the tensor. [`FormatError::hint`] says what the user
//! can do. An error is about the world: a damaged file, an unknown architecture. A caller that
//! breaks a documented precondition gets a panic instead.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// The families that can be read, as messages name them.
const SUPPORTED: &str = "LlamaForCausalLM (Llama 2 and 3, SmolLM2, DeepSeek-R1-Distill-Llama), MistralForCausalLM, \
     Qwen2ForCausalLM (Qwen2, Qwen2.5, DeepSeek-R1-Distill-Qwen) and Qwen3ForCausalLM";

/// A model's files could not be read, understood or written.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The operating system refused.
    #[error("{path}: cannot {action}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried: "read", "create", "rename" …
        action: &'static str,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The bytes of a file contradict its format or each other.
    #[error("{path}: {}", shown(problem))]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        problem: String,
        /// What to do about it.
        hint: String,
    },
    /// A field of a configuration is missing, has a wrong value, or asks for something that Ferule does not do.
    #[error("{path}: `{}`: {}", shown(field), shown(problem))]
    Config {
        /// Where the configuration came from.
        path: PathBuf,
        /// The field, by its Hugging Face name.
        field: String,
        /// What is wrong with it.
        problem: String,
        /// What to do about it.
        hint: String,
    },
    /// A model of a family that Ferule does not have.
    #[error("{path}: unknown architecture {}", shown(found))]
    UnknownArchitecture {
        /// The configuration.
        path: PathBuf,
        /// The architecture as the file names it.
        found: String,
    },
    /// A tensor that the configuration calls for is missing.
    #[error("{path}: tensor `{}` is missing (shape {expected:?} is needed)", shown(name))]
    MissingTensor {
        /// The file or folder that was searched.
        path: PathBuf,
        /// The tensor's Hugging Face name.
        name: String,
        /// The shape that the configuration calls for.
        expected: Vec<usize>,
    },
    /// A tensor has another shape than the configuration calls for.
    #[error("{path}: tensor `{}` has shape {found:?} where the configuration calls for {expected:?}", shown(name))]
    Shape {
        /// The file that holds the tensor.
        path: PathBuf,
        /// The tensor's Hugging Face name.
        name: String,
        /// The shape in the file.
        found: Vec<usize>,
        /// The shape that the configuration calls for.
        expected: Vec<usize>,
    },
    /// A chat template cannot render a conversation.
    #[error("{path}: the chat template refuses the conversation: {}", shown(problem))]
    Template {
        /// The file that holds the template.
        path: PathBuf,
        /// The message of the template or of the template engine.
        problem: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// A weight is NaN or infinite.
    #[error("{path}: tensor `{}` holds {value} at element {index}", shown(name))]
    NotFinite {
        /// The file that holds the tensor.
        path: PathBuf,
        /// The tensor's Hugging Face name.
        name: String,
        /// Position of the first such element in row-major order.
        index: usize,
        /// The value.
        value: f32,
    },
}

impl FormatError {
    /// An [`FormatError::Io`] about `path`; meant for `map_err`.
    pub fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, action, source }
    }

    /// A [`FormatError::Malformed`] about `path`.
    pub fn malformed(path: &Path, problem: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Malformed { path: path.to_path_buf(), problem: problem.into(), hint: hint.into() }
    }

    /// A [`FormatError::Config`] about `field` of the configuration at `path`.
    pub fn config(path: &Path, field: &str, problem: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Config { path: path.to_path_buf(), field: field.into(), problem: problem.into(), hint: hint.into() }
    }

    /// What the user can do about it; `None` where only the operating system knows.
    pub fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Io { source, .. } => disk_hint(source).map(Cow::from),
            Self::Malformed { hint, .. } | Self::Config { hint, .. } => Some(hint.into()),
            Self::UnknownArchitecture { .. } => Some(format!("supported are {SUPPORTED}").into()),
            Self::MissingTensor { .. } => {
                Some("the weights belong to another config.json, or a shard was not downloaded".into())
            }
            Self::Shape { .. } => Some("the weights belong to another config.json".into()),
            Self::Template { hint, .. } => Some((*hint).into()),
            Self::NotFinite { .. } => Some(
                "the run that wrote these weights diverged, or the file is damaged; take an earlier checkpoint".into(),
            ),
        }
    }
}

/// The most characters of a file that a message quotes.
const MOST_QUOTED: usize = 1000;

/// Words that may come from a file, for a terminal: characters that could steer it are escaped, and long texts are cut.
fn shown(text: &str) -> String {
    let mut shown = String::new();
    for (count, c) in text.chars().enumerate() {
        match c {
            _ if count == MOST_QUOTED => {
                shown.push_str(" …");
                break;
            }
            '\n' | '\t' => shown.push(c),
            _ if c.is_control() => shown.push_str(&format!("\\x{:02x}", u32::from(c))),
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                shown.extend(c.escape_unicode())
            }
            _ => shown.push(c),
        }
    }
    shown
}

/// The error as a user meets it.
#[cfg(test)]
pub(crate) fn told(error: &FormatError) -> String {
    format!("{error}\nhint: {}", error.hint().unwrap_or_default())
}

/// What to do about the refusals of the operating system that a user can act on at once.
fn disk_hint(source: &std::io::Error) -> Option<&'static str> {
    match source.kind() {
        std::io::ErrorKind::StorageFull => Some("free space on the disk and run the command again"),
        std::io::ErrorKind::PermissionDenied => Some("choose a folder that you may write to, or change its rights"),
        std::io::ErrorKind::NotFound => Some("check the path for a typing error"),
        _ => None,
    }
}
