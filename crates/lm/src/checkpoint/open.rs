//! Opens a model on disk in any supported format: [`open`].

use std::path::Path;

use super::gguf;
use super::huggingface::{self, GenerationConfig};
use super::source::TensorSource;
use crate::config::Config;
use crate::error::FormatError;
use crate::template::ChatTemplate;
use crate::tokenizer::Tokenizer;

/// A model on disk, in one of two formats.
#[derive(Debug)]
pub enum Checkpoint {
    /// A Hugging Face folder.
    Folder(huggingface::Folder),
    /// A GGUF file.
    Gguf(gguf::File),
}

/// Opens a Hugging Face folder, or, if `path` is a file, a GGUF file.
///
/// # Errors
/// Those of [`huggingface::Folder::open`] or [`gguf::File::open`].
pub fn open(path: &Path) -> Result<Checkpoint, FormatError> {
    let kind = std::fs::metadata(path).map_err(FormatError::io(path, "open"))?;
    if kind.is_dir() {
        huggingface::Folder::open(path).map(Checkpoint::Folder)
    } else {
        gguf::File::open(path).map(Checkpoint::Gguf)
    }
}

impl Checkpoint {
    /// The model's configuration.
    pub fn config(&self) -> &Config {
        match self {
            Checkpoint::Folder(folder) => folder.config(),
            Checkpoint::Gguf(file) => file.config(),
        }
    }

    /// How its authors recommend to sample from it, and which tokens end a text.
    pub fn generation(&self) -> &GenerationConfig {
        match self {
            Checkpoint::Folder(folder) => folder.generation(),
            Checkpoint::Gguf(file) => file.generation(),
        }
    }

    /// Its weights.
    pub fn tensors(&self) -> &dyn TensorSource {
        match self {
            Checkpoint::Folder(folder) => folder.tensors(),
            Checkpoint::Gguf(file) => file,
        }
    }

    /// Its tokenizer.
    ///
    /// # Errors
    /// [`FormatError::Io`] or [`FormatError::Malformed`] if there is no tokenizer, or none that can be read.
    pub fn tokenizer(&self) -> Result<Tokenizer, FormatError> {
        match self {
            Checkpoint::Folder(folder) => folder.tokenizer(),
            Checkpoint::Gguf(file) => file.tokenizer(),
        }
    }

    /// Its chat template, if it has one.
    ///
    /// # Errors
    /// [`FormatError::Malformed`] for a template that does not parse.
    pub fn template(&self) -> Result<Option<ChatTemplate>, FormatError> {
        match self {
            Checkpoint::Folder(folder) => folder.template(),
            Checkpoint::Gguf(file) => file.template(),
        }
    }
}
