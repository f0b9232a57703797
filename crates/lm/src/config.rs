//! What shape a model has: [`Config`], with the field names of Hugging Face's `config.json`.
//!
//! One decoder serves four families; what tells them apart is resolved here into a few questions
//! ([`Config::qkv_bias`], [`Config::qk_norm`], [`Config::rotary_frequencies`]), so that no code below asks for a
//! family's name. A `Config` that exists is valid: heads divide, sizes are sane, nothing it asks for is silently
//! ignored. A sliding window that would really be applied, an output bias or an unknown rotary scaling is refused.
//!
//! Never reads weights. Departs from `transformers` in that defaults differing between its versions are taken from
//! version 5, and in that a missing `bos_token_id` or `eos_token_id` is none rather than 1 or 2.
//!
//! Read next: `config/tensors.rs` (the one table of tensors), `config/json.rs` (reading and writing `config.json`),
//! `config/shape.rs` (models from random weights), then [`crate::checkpoint`].

mod json;
mod shape;
mod tensors;

pub use shape::Shape;
pub use tensors::{Part, TensorSpec};

use std::path::Path;

use kernels::ops::attention::MAX_HEAD_DIM;

use crate::error::FormatError;

/// The families that can be read, as an error message names them.
pub const SUPPORTED: &str = "LlamaForCausalLM (Llama 2 and 3, SmolLM2, DeepSeek-R1-Distill-Llama), \
     MistralForCausalLM, Qwen2ForCausalLM (Qwen2, Qwen2.5, DeepSeek-R1-Distill-Qwen) and Qwen3ForCausalLM";

/// A family of decoders: which optional tensors a layer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Llama 2 and 3, SmolLM2, DeepSeek-R1-Distill-Llama: the plain decoder.
    Llama,
    /// Mistral: the plain decoder, with a sliding window in some releases.
    Mistral,
    /// Qwen2 and 2.5: biases on the query, key and value projections.
    Qwen2,
    /// Qwen3: RMSNorm over each query and key head before the rotary embedding.
    Qwen3,
}

impl Family {
    /// All families, in the order in which messages list them.
    pub const ALL: [Family; 4] = [Family::Llama, Family::Mistral, Family::Qwen2, Family::Qwen3];

    /// The `model_type` of `config.json`.
    pub fn model_type(self) -> &'static str {
        match self {
            Family::Llama => "llama",
            Family::Mistral => "mistral",
            Family::Qwen2 => "qwen2",
            Family::Qwen3 => "qwen3",
        }
    }

    /// The entry of `architectures` in `config.json`.
    pub fn architecture(self) -> &'static str {
        match self {
            Family::Llama => "LlamaForCausalLM",
            Family::Mistral => "MistralForCausalLM",
            Family::Qwen2 => "Qwen2ForCausalLM",
            Family::Qwen3 => "Qwen3ForCausalLM",
        }
    }
}

/// How rotary frequencies are stretched for contexts longer than the first training's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// Every frequency divided by `factor` (position interpolation, arXiv 2306.15595).
    Linear {
        /// By how much positions are compressed.
        factor: f64,
    },
    /// Llama 3.1's: low frequencies divided by `factor`, high ones kept, those between blended.
    Llama3 {
        /// By how much the lowest frequencies are divided.
        factor: f64,
        /// Wavelengths above `original_max_position_embeddings / low_freq_factor` are fully scaled.
        low_freq_factor: f64,
        /// Wavelengths below `original_max_position_embeddings / high_freq_factor` are left alone.
        high_freq_factor: f64,
        /// The context of the first training, in tokens.
        original_max_position_embeddings: usize,
    },
}

/// The shape and constants of one decoder. Field names are `config.json`'s; see the [module](self).
///
/// The fields are public for reading. Build one with [`Config::read`], [`Config::from_json`] or
/// [`Config::from_shape`], which validate; after changing a field by hand call [`Config::validate`].
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The family, from `model_type` or `architectures`.
    pub model_type: Family,
    /// Width C of the residual stream.
    pub hidden_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number H of query heads.
    pub num_attention_heads: usize,
    /// Number K of key and value heads; divides H.
    pub num_key_value_heads: usize,
    /// Width D of a head, even. H × D need not equal C.
    pub head_dim: usize,
    /// Width of the SwiGLU's inner layer.
    pub intermediate_size: usize,
    /// Number V of rows in the embedding, padding rows included.
    pub vocab_size: usize,
    /// Longest context in tokens.
    pub max_position_embeddings: usize,
    /// Added to the mean square inside every RMSNorm.
    pub rms_norm_eps: f64,
    /// Base of the rotary embedding's wavelengths.
    pub rope_theta: f64,
    /// Stretching of the rotary embedding, if any.
    pub rope_scaling: Option<RopeScaling>,
    /// Whether the head is the embedding, transposed.
    pub tie_word_embeddings: bool,
    /// Token that begins a text, if the model has one.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a text; empty when the configuration names none.
    pub eos_token_id: Vec<u32>,
    /// Token that fills up batches elsewhere; Ferule never pads.
    pub pad_token_id: Option<u32>,
    /// Standard deviation of random initial weights.
    pub initializer_range: f64,
}

impl Config {
    /// Reads and validates a `config.json`.
    ///
    /// # Errors
    /// [`FormatError::Io`], or what [`Config::from_json`] refuses.
    pub fn read(path: &Path) -> Result<Self, FormatError> {
        let text = std::fs::read_to_string(path).map_err(FormatError::io(path, "read"))?;
        Self::from_json(&text, path)
    }

    /// Whether query, key and value projections have a bias.
    pub fn qkv_bias(&self) -> bool {
        self.model_type == Family::Qwen2
    }

    /// Whether each query and key head passes an RMSNorm before the rotary embedding.
    pub fn qk_norm(&self) -> bool {
        self.model_type == Family::Qwen3
    }

    /// Width of all query heads together, H × D.
    pub fn query_size(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// Width of all key heads together, K × D; the values' likewise.
    pub fn key_value_size(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }

    /// Number of parameters; a tied head is not counted twice.
    pub fn parameters(&self) -> usize {
        self.tensors().iter().map(TensorSpec::len).sum()
    }

    /// Rotary frequencies in radians per position, `[D/2]`, after scaling, in f64.
    ///
    /// Dimension `i` of a head turns together with dimension `i + D/2` (Hugging Face's half-split layout).
    ///
    /// # Source
    /// Su et al. 2021, arXiv 2104.09864; the Llama 3.1 blend as `transformers` computes it (`rope_type = "llama3"`).
    pub fn rotary_frequencies(&self) -> Vec<f64> {
        let dims = self.head_dim;
        let plain = (0..dims / 2).map(|i| self.rope_theta.powf(-((2 * i) as f64) / dims as f64));
        match self.rope_scaling {
            None => plain.collect(),
            Some(RopeScaling::Linear { factor }) => plain.map(|f| f / factor).collect(),
            Some(RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            }) => {
                let context = original_max_position_embeddings as f64;
                plain
                    .map(|f| {
                        let turns = context * f / std::f64::consts::TAU;
                        if turns < low_freq_factor {
                            f / factor
                        } else if turns > high_freq_factor {
                            f
                        } else {
                            let share = (turns - low_freq_factor) / (high_freq_factor - low_freq_factor);
                            (1.0 - share) * f / factor + share * f
                        }
                    })
                    .collect()
            }
        }
    }

    /// Checks everything that the rest of the program relies on; `path` is where the configuration came from.
    ///
    /// # Errors
    /// [`FormatError::Config`] with the field's name: a size of zero or beyond any model built so far, query heads
    /// that key heads do not divide, an odd `head_dim`, constants that are not positive, a token outside the vocabulary.
    pub fn validate(&self, path: &Path) -> Result<(), FormatError> {
        let fail = |field: &str, problem: String, hint: &str| Err(FormatError::config(path, field, problem, hint));
        let sizes = [
            ("hidden_size", self.hidden_size, 1 << 16),
            ("num_hidden_layers", self.num_hidden_layers, 1 << 10),
            ("num_attention_heads", self.num_attention_heads, 1 << 10),
            ("num_key_value_heads", self.num_key_value_heads, 1 << 10),
            ("head_dim", self.head_dim, MAX_HEAD_DIM),
            ("intermediate_size", self.intermediate_size, 1 << 18),
            ("vocab_size", self.vocab_size, 1 << 22),
            ("max_position_embeddings", self.max_position_embeddings, 1 << 24),
        ];
        for (field, size, most) in sizes {
            if size == 0 || size > most {
                return fail(
                    field,
                    format!("{size} is not between 1 and {most}"),
                    "is this the model's own config.json?",
                );
            }
        }
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            let problem = format!(
                "{} does not divide num_attention_heads {}",
                self.num_key_value_heads, self.num_attention_heads
            );
            return fail("num_key_value_heads", problem, "every key head must serve the same number of query heads");
        }
        if !self.head_dim.is_multiple_of(2) {
            let problem = format!("{} is odd", self.head_dim);
            return fail("head_dim", problem, "the rotary embedding turns dimensions in pairs; choose an even width");
        }
        let constants = [
            ("rms_norm_eps", self.rms_norm_eps, 1.0),
            ("rope_theta", self.rope_theta, 1e15),
            ("initializer_range", self.initializer_range, 1e3),
        ];
        for (field, value, most) in constants {
            if !(value > 0.0 && value <= most) {
                return fail(
                    field,
                    format!("{value} is not above 0 and at most {most}"),
                    "usual are 1e-5, 10000 and 0.02",
                );
            }
        }
        self.validate_scaling(path)?;
        let ids = self.bos_token_id.iter().map(|id| ("bos_token_id", id));
        for (field, &id) in ids.chain(self.eos_token_id.iter().map(|id| ("eos_token_id", id))) {
            if id as usize >= self.vocab_size {
                let problem = format!("{id} is outside the vocabulary of {}", self.vocab_size);
                return fail(field, problem, "the config.json and the tokenizer must belong to the same model");
            }
        }
        Ok(())
    }

    fn validate_scaling(&self, path: &Path) -> Result<(), FormatError> {
        let sound = match self.rope_scaling {
            None => true,
            Some(RopeScaling::Linear { factor }) => factor >= 1.0 && factor.is_finite(),
            Some(RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            }) => {
                factor >= 1.0
                    && factor.is_finite()
                    && low_freq_factor > 0.0
                    && high_freq_factor > low_freq_factor
                    && high_freq_factor.is_finite()
                    && original_max_position_embeddings > 0
            }
        };
        if sound {
            return Ok(());
        }
        let problem = format!("{:?} makes no sense", self.rope_scaling);
        let hint = "factor must be at least 1 and low_freq_factor below high_freq_factor";
        Err(FormatError::config(path, "rope_scaling", problem, hint))
    }
}

#[cfg(test)]
mod tests;
