//! Where weights are read from ([`TensorSource`]), and whether they fit a configuration ([`check`]).

use std::collections::HashSet;
use std::path::Path;

use crate::config::Config;
use crate::error::FormatError;
use crate::layout::HEAD;

/// A source of weights: named tensors that can be read as f32, whatever their stored type.
pub trait TensorSource {
    /// The file or folder, for messages.
    fn path(&self) -> &Path;

    /// Hugging Face names of all tensors, sorted.
    fn names(&self) -> Vec<String>;

    /// Shape of a tensor, outermost dimension first; `None` if there is no such tensor.
    fn shape(&self, name: &str) -> Option<Vec<usize>>;

    /// Whether some matrix is stored in f32. Computing in bf16 would then lose digits that the authors kept.
    fn has_f32_matrices(&self) -> bool {
        true
    }

    /// The narrowest storage of 16 bits or more that holds all matrices exactly. If all matrices are quantised to fewer
    /// bits, it is bf16, which rounds them less than the quantisation did.
    fn lossless_storage(&self) -> Storage {
        Storage::F32
    }

    /// Reads a whole tensor in row-major order, widened or dequantised to f32.
    ///
    /// * `out`: as many elements as the tensor has; overwritten.
    ///
    /// # Errors
    /// [`FormatError::Malformed`] for an element type that cannot be read, [`FormatError::NotFinite`] for a NaN or an
    /// infinity, [`FormatError::Shape`] if `out` and the tensor differ in length, [`FormatError::MissingTensor`] for an
    /// unknown name.
    fn read_f32(&self, name: &str, out: &mut [f32]) -> Result<(), FormatError>;
}

/// Reads a tensor that shall be written to `path`. Weights in memory have no file, so an error about a value names the
/// file that was to hold it.
pub(crate) fn read_for(path: &Path, source: &dyn TensorSource, name: &str, out: &mut [f32]) -> Result<(), FormatError> {
    source.read_f32(name, out).map_err(|error| match error {
        FormatError::NotFinite { name, index, value, .. } => {
            FormatError::NotFinite { path: path.into(), name, index, value }
        }
        other => other,
    })
}

/// Element types in which weights can be stored.
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

/// The narrowest storage that holds matrices of all these storages exactly. None of them has fewer than 16 bits.
pub(crate) fn holding_all(matrices: impl Iterator<Item = Storage>) -> Storage {
    matrices.reduce(|a, b| if a == b { a } else { Storage::F32 }).unwrap_or(Storage::Bf16)
}

/// Compares the names and shapes of a source's tensors with those that a configuration needs.
///
/// It reads no values. It also refuses tensors for which the configuration has no place: a bias or a layer that is
/// silently left out would give a different model. A few tensors without information are accepted: a stored copy of a
/// tied head, and the rotary frequencies of old releases.
///
/// # Errors
/// [`FormatError::MissingTensor`], [`FormatError::Shape`], or [`FormatError::Malformed`] for tensors that have no
/// place.
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
