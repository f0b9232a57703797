//! The errors of reading a model from disk or writing it.
//!
//! Every message names the file and, if there is one, the field or the tensor. It ends with a `hint:` if the user can
//! do something. An error is about the outside world: a damaged file, an unknown architecture. A caller that breaks a
//! documented precondition gets a panic instead.

use std::path::{Path, PathBuf};

/// The families that can be read, in the form that messages show.
const SUPPORTED: &str = "LlamaForCausalLM (Llama 2 and 3, SmolLM2, DeepSeek-R1-Distill-Llama), MistralForCausalLM, \
     Qwen2ForCausalLM (Qwen2, Qwen2.5, DeepSeek-R1-Distill-Qwen) and Qwen3ForCausalLM";

/// Reading, understanding or writing a model's files has failed.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The operating system reported an error.
    #[error("{path}: cannot {action}: {source}{}", disk_hint(source))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried: "read", "create", "rename" …
        action: &'static str,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The bytes of a file contradict its format or each other.
    #[error("{path}: {problem}\nhint: {hint}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        problem: String,
        /// What to do about it.
        hint: String,
    },
    /// A field of a configuration is missing, has a wrong value, or asks for something that Ferule does not do.
    #[error("{path}: `{field}`: {problem}\nhint: {hint}")]
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
    #[error("{path}: unknown architecture {found}\nhint: supported are {}", SUPPORTED)]
    UnknownArchitecture {
        /// The configuration.
        path: PathBuf,
        /// The architecture as the file names it.
        found: String,
    },
    /// A tensor that the configuration needs is missing.
    #[error(
        "{path}: tensor `{name}` is missing (shape {expected:?} is needed)\n\
         hint: the weights belong to another config.json, or a shard was not downloaded"
    )]
    MissingTensor {
        /// The file or folder that was searched.
        path: PathBuf,
        /// The tensor's Hugging Face name.
        name: String,
        /// The shape that the configuration needs.
        expected: Vec<usize>,
    },
    /// A tensor has a shape other than the configuration needs.
    #[error(
        "{path}: tensor `{name}` has shape {found:?} where the configuration calls for {expected:?}\n\
         hint: the weights belong to another config.json"
    )]
    Shape {
        /// The file that holds the tensor.
        path: PathBuf,
        /// The tensor's Hugging Face name.
        name: String,
        /// The shape in the file.
        found: Vec<usize>,
        /// The shape that the configuration needs.
        expected: Vec<usize>,
    },
    /// A chat template cannot render a conversation.
    #[error("{path}: the chat template refuses the conversation: {problem}\nhint: {hint}")]
    Template {
        /// The file that holds the template.
        path: PathBuf,
        /// The message of the template or of the template engine.
        problem: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// A weight is NaN or infinite.
    #[error(
        "{path}: tensor `{name}` holds {value} at element {index}\n\
         hint: the run that wrote these weights diverged, or the file is damaged; take an earlier checkpoint"
    )]
    NotFinite {
        /// The file that holds the tensor.
        path: PathBuf,
        /// The tensor's Hugging Face name.
        name: String,
        /// Index of the first such element in row-major order.
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
}

/// A hint for the errors that a user can act on at once.
fn disk_hint(source: &std::io::Error) -> &'static str {
    match source.kind() {
        std::io::ErrorKind::StorageFull => "\nhint: free space on the disk and run the command again",
        std::io::ErrorKind::PermissionDenied => "\nhint: choose a folder that you may write to, or change its rights",
        std::io::ErrorKind::NotFound => "\nhint: check the path for a typing error",
        _ => "",
    }
}
