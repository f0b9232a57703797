//! Models on disk: Hugging Face folders behind one trait, [`TensorSource`].
//!
//! Reading goes in three steps, each of which can refuse: the header is validated against the file's length before
//! anything is allocated; [`check`] compares names and shapes with the table of [`Config::tensors`]; and every value
//! read is checked to be finite. Whoever fills an arena therefore does it in one loop:
//!
//! ```no_run
//! # use lm::checkpoint::{self, TensorSource};
//! # fn main() -> Result<(), lm::FormatError> {
//! let model = checkpoint::open(std::path::Path::new("SmolLM2-135M"))?;
//! let source = model.tensors();
//! checkpoint::check(model.config(), source)?;
//! for spec in model.config().tensors() {
//!     let mut values = vec![0.0; spec.len()];
//!     source.read_f32(&spec.name, &mut values)?;
//! }
//! # Ok(()) }
//! ```
//!
//! Files are written beside their final place, flushed to the disk and renamed, so that a reader sees the old file or
//! the new one and never half of it.
//!
//! Read next: [`huggingface`].

pub mod huggingface;
mod numbers;
pub mod safetensors;

use crate::config::{Config, Part};
use crate::error::FormatError;
use crate::template::ChatTemplate;
use crate::tokenizer::Tokenizer;
use huggingface::GenerationConfig;
use std::collections::HashSet;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

/// Where weights come from: named tensors that can be read as f32, whatever they are stored as.
pub trait TensorSource {
    /// The file or folder, for messages.
    fn path(&self) -> &Path;

    /// Hugging Face names of all tensors, sorted.
    fn names(&self) -> Vec<String>;

    /// Shape of a tensor, outermost dimension first; none if there is no such tensor.
    fn shape(&self, name: &str) -> Option<Vec<usize>>;

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
    /// IEEE half precision, two bytes; only GGUF files are written so.
    F16,
    /// The upper half of an f32, two bytes.
    Bf16,
    /// Blocks of 32 signed bytes with a common half-precision scale; GGUF only, matrices only.
    Q8_0,
}

/// A tensor to be written: its Hugging Face name, its shape and its values in row-major order.
#[derive(Debug, Clone, Copy)]
pub struct NamedTensor<'a> {
    /// Hugging Face's name.
    pub name: &'a str,
    /// Shape, outermost dimension first.
    pub shape: &'a [usize],
    /// The values, as many as the shape says.
    pub values: &'a [f32],
}

/// A model on disk, in either form.
#[derive(Debug)]
pub enum Checkpoint {
    /// A Hugging Face folder.
    Folder(huggingface::Folder),
}

/// Opens a Hugging Face folder.
///
/// # Errors
/// Whatever [`huggingface::Folder::open`] refuses.
pub fn open(path: &Path) -> Result<Checkpoint, FormatError> {
    huggingface::Folder::open(path).map(Checkpoint::Folder)
}

impl Checkpoint {
    /// The model's configuration.
    pub fn config(&self) -> &Config {
        match self {
            Checkpoint::Folder(folder) => folder.config(),
        }
    }

    /// How its makers want it sampled, and which tokens end a text.
    pub fn generation(&self) -> &GenerationConfig {
        match self {
            Checkpoint::Folder(folder) => folder.generation(),
        }
    }

    /// Its weights.
    pub fn tensors(&self) -> &dyn TensorSource {
        match self {
            Checkpoint::Folder(folder) => folder.tensors(),
        }
    }

    /// Its tokenizer.
    ///
    /// # Errors
    /// [`FormatError::Io`] or [`FormatError::Malformed`] where there is none, or none that can be read.
    pub fn tokenizer(&self) -> Result<Tokenizer, FormatError> {
        match self {
            Checkpoint::Folder(folder) => folder.tokenizer(),
        }
    }

    /// Its chat template, if it has one.
    ///
    /// # Errors
    /// [`FormatError::Malformed`] for a template that does not parse.
    pub fn template(&self) -> Result<Option<ChatTemplate>, FormatError> {
        match self {
            Checkpoint::Folder(folder) => folder.template(),
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
    let harmless = |name: &str| {
        name.ends_with("rotary_emb.inv_freq") || (config.tie_word_embeddings && name == Part::Head.suffix())
    };
    let names = source.names();
    let left_over: Vec<&String> = names.iter().filter(|name| !known.contains(*name) && !harmless(name)).collect();
    if let Some(first) = left_over.first() {
        let problem = format!("{} tensors have no place in this model, such as `{first}`", left_over.len());
        let hint = "does config.json belong to these weights? (layers, model_type, adapters not merged)";
        return Err(FormatError::malformed(path, problem, hint));
    }
    Ok(())
}

/// Lets `write` fill a temporary file in the folder of `path`, flushes it to the disk and renames it to `path`.
///
/// On failure the temporary file is removed and whatever stood at `path` is left as it was.
pub(crate) fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
) -> Result<(), FormatError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.partial", std::process::id()));
    let partial = folder.join(name);
    let done = File::create(&partial)
        .and_then(|file| {
            let mut file = BufWriter::with_capacity(1 << 20, file);
            write(&mut file)?;
            file.into_inner().map_err(|error| error.into_error())?.sync_all()
        })
        .and_then(|()| std::fs::rename(&partial, path))
        // The rename itself must survive a power cut.
        .and_then(|()| File::open(folder)?.sync_all());
    if done.is_err() {
        // Already failing: a leftover that cannot be removed changes nothing.
        let _ = std::fs::remove_file(&partial);
    }
    done.map_err(FormatError::io(path, "write"))
}

#[cfg(test)]
mod tests;
