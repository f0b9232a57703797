//! Models on disk: Hugging Face folders and GGUF files behind one trait, [`TensorSource`].
//!
//! Reading goes in three steps, each of which can refuse: the header is validated against the file's length before
//! anything is allocated; [`check`] compares names and shapes with the table of [`Config::tensors`]; and every value
//! read is checked to be finite. [`Arena::load`] does the last two:
//!
//! ```no_run
//! # use lm::checkpoint;
//! # fn main() -> Result<(), lm::FormatError> {
//! let model = checkpoint::open(std::path::Path::new("SmolLM2-135M"))?;
//! let master = lm::Arena::load(kernels::Device::Cpu, model.config(), model.tensors())?;
//! # Ok(()) }
//! ```
//!
//! Files are written beside their final place, flushed to the disk and renamed, so that a reader sees the old file or
//! the new one and never half of it.
//!
//! Read next: [`huggingface`], then [`gguf`].

mod bytes;
pub mod gguf;
pub mod huggingface;
mod numbers;
pub mod safetensors;

use crate::config::Config;
use crate::error::FormatError;
use crate::layout::HEAD;
use crate::params::Arena;
use crate::template::ChatTemplate;
use crate::tokenizer::Tokenizer;
use huggingface::GenerationConfig;
use std::collections::HashSet;
use std::path::Path;

/// Where weights come from: named tensors that can be read as f32, whatever they are stored as.
pub trait TensorSource {
    /// The file or folder, for messages.
    fn path(&self) -> &Path;

    /// Hugging Face names of all tensors, sorted.
    fn names(&self) -> Vec<String>;

    /// Shape of a tensor, outermost dimension first; none if there is no such tensor.
    fn shape(&self, name: &str) -> Option<Vec<usize>>;

    /// Whether some matrix is stored in f32, so that computing in bf16 would round what its makers kept.
    fn has_f32_matrices(&self) -> bool {
        true
    }

    /// The narrowest storage of 16 bits or more that loses nothing of the matrices; bf16 where all are of fewer bits, which rounds
    /// them no more than their own makers did.
    fn lossless_storage(&self) -> Storage {
        Storage::F32
    }

    /// Reads a whole tensor in row-major order, widened or dequantised to f32.
    ///
    /// * `out`: as many elements as the tensor has; overwritten.
    ///
    /// # Errors
    /// [`FormatError::Malformed`] for an element type that cannot be read, [`FormatError::NotFinite`] for a NaN or
    /// an infinity, [`FormatError::Shape`] where `out` has another length than the tensor,
    /// [`FormatError::MissingTensor`] for an unknown name.
    fn read_f32(&self, name: &str, out: &mut [f32]) -> Result<(), FormatError>;
}

/// Element types in which weights can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Storage {
    /// Four bytes, exact.
    F32,
    /// IEEE half precision, two bytes.
    F16,
    /// The upper half of an f32, two bytes.
    Bf16,
    /// Blocks of 32 signed bytes with a common half-precision scale; GGUF only, matrices only.
    Q8_0,
}

/// The storage that holds matrices of all these; none of them is of fewer than 16 bits.
pub(crate) fn holding_all(matrices: impl Iterator<Item = Storage>) -> Storage {
    matrices.reduce(|a, b| if a == b { a } else { Storage::F32 }).unwrap_or(Storage::Bf16)
}

/// A model on disk, in either form.
#[derive(Debug)]
pub enum Checkpoint {
    /// A Hugging Face folder.
    Folder(huggingface::Folder),
    /// A GGUF file.
    Gguf(gguf::File),
}

/// Opens a Hugging Face folder, or a GGUF file if `path` is a file.
///
/// # Errors
/// Whatever [`huggingface::Folder::open`] or [`gguf::File::open`] refuses.
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

    /// How its makers want it sampled, and which tokens end a text.
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
    /// [`FormatError::Io`] or [`FormatError::Malformed`] where there is none, or none that can be read.
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

/// Master weights can be written like any source; see [`huggingface::save`] and [`gguf::save`].
impl TensorSource for Arena {
    fn path(&self) -> &Path {
        Path::new("weights in memory")
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.specs().iter().map(|spec| spec.name.clone()).collect();
        names.sort();
        names
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.specs().iter().find(|spec| spec.name == name).map(|spec| spec.shape.clone())
    }

    fn read_f32(&self, name: &str, out: &mut [f32]) -> Result<(), FormatError> {
        let path = || self.path().to_path_buf();
        let Some(index) = self.specs().iter().position(|spec| spec.name == name) else {
            return Err(FormatError::MissingTensor { path: path(), name: name.into(), expected: vec![] });
        };
        let values = self.tensor(index);
        if self.specs()[index].len() != out.len() {
            let (found, expected) = (self.specs()[index].shape.clone(), vec![out.len()]);
            return Err(FormatError::Shape { path: path(), name: name.into(), found, expected });
        }
        values.copy_to_host(out);
        match numbers::first_not_finite(out) {
            None => Ok(()),
            Some((index, value)) => Err(FormatError::NotFinite { path: path(), name: name.into(), index, value }),
        }
    }
}

/// Compares the tensors of a file with those that a configuration calls for.
///
/// Nothing is read. Tensors that no configuration of these families uses are refused too, since leaving a bias or a
/// layer out would silently make another model of it; the few that carry no information are let through (a stored
/// copy of a tied head, the rotary frequencies of old releases).
///
/// # Errors
/// [`FormatError::MissingTensor`], [`FormatError::Shape`], or [`FormatError::Malformed`] for tensors left over.
pub fn check(config: &Config, source: &dyn TensorSource) -> Result<(), FormatError> {
    let path = source.path();
    let mut known = HashSet::new();
    for spec in config.tensors() {
        match source.shape(&spec.name) {
            None => {
                return Err(FormatError::MissingTensor { path: path.into(), name: spec.name, expected: spec.shape });
            }
            Some(found) if found != spec.shape => {
                return Err(FormatError::Shape { path: path.into(), name: spec.name, found, expected: spec.shape });
            }
            Some(_) => known.insert(spec.name),
        };
    }
    let harmless = |name: &str| name.ends_with("rotary_emb.inv_freq") || (config.tie_word_embeddings && name == HEAD);
    let names = source.names();
    let left_over: Vec<&String> = names.iter().filter(|name| !known.contains(*name) && !harmless(name)).collect();
    if let Some(first) = left_over.first() {
        let problem = format!("{} tensors have no place in this model, such as `{first}`", left_over.len());
        let hint = "does config.json belong to these weights? (layers, model_type, adapters not merged)";
        return Err(FormatError::malformed(path, problem, hint));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
