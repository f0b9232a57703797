//! The shape of a model: [`Config`], with the field names of Hugging Face's `config.json`.
//!
//! One decoder serves four families. The differences between them are a few properties of the configuration
//! ([`Config::layer_types`], [`Config::qkv_bias`], [`Config::qk_norm`], [`Config::rotary_frequencies`]). So the code
//! that computes never asks for the name of a family.
//!
//! A `Config` is valid: heads divide, sizes are reasonable, and a field that would change the arithmetic is either
//! implemented or refused. It refuses a sliding window shorter than the context, a bias on the output projection, and
//! an unknown rotary scaling.
//!
//! Reading a configuration never reads the weights. There are two differences from `transformers`. If its versions
//! differ in a default, version 5's is used. And a missing `bos_token_id` or `eos_token_id` means that there is no such
//! token, instead of 1 or 2.
//!
//! Read next: `config/json.rs` (reading `config.json`), `config/validate.rs` (what is refused), `config/shape.rs`
//! (models that start from random weights), then [`crate::checkpoint`].

mod json;
mod shape;
mod validate;
mod write;

pub use shape::Shape;

use std::path::Path;

use crate::error::FormatError;

/// An upper bound on the number of layers, above that of any model.
const MOST_LAYERS: usize = 1 << 10;

/// A family of decoders. It says which optional tensors a layer has.
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

/// The kind of a layer: which tokens a token sees. Names are Hugging Face's.
///
/// To add a kind, add a variant here, a file beside `layer/attention.rs`, and its arms in `layer/mod.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LayerType {
    /// Causal attention over the whole sequence.
    FullAttention,
    /// Causal attention over the last [`Config::sliding_window`] tokens. A valid configuration has it only if the
    /// window covers the whole context, so it computes the same as [`LayerType::FullAttention`].
    SlidingAttention,
}

impl LayerType {
    /// All kinds, in the order in which messages list them.
    pub const ALL: [LayerType; 2] = [LayerType::FullAttention, LayerType::SlidingAttention];

    /// Full attention in each of `count` layers. Layers beyond the upper bound are left out: [`Config::validate`]
    /// refuses such a count before it looks at the kinds.
    pub(crate) fn full(count: usize) -> Vec<LayerType> {
        vec![LayerType::FullAttention; count.min(MOST_LAYERS)]
    }

    /// The entry of `layer_types` in `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            LayerType::FullAttention => "full_attention",
            LayerType::SlidingAttention => "sliding_attention",
        }
    }
}

/// How rotary frequencies are scaled for contexts longer than those of the first training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// Every frequency is divided by `factor` (position interpolation: Chen et al. 2023, arXiv 2306.15595).
    Linear {
        /// The factor by which positions are compressed.
        factor: f64,
    },
    /// Llama 3.1's scaling: low frequencies are divided by `factor`, high ones are kept, and those between are blended.
    Llama3 {
        /// The divisor of the lowest frequencies.
        factor: f64,
        /// Wavelengths above `original_max_position_embeddings / low_freq_factor` are fully scaled.
        low_freq_factor: f64,
        /// Wavelengths below `original_max_position_embeddings / high_freq_factor` are not scaled.
        high_freq_factor: f64,
        /// The context of the first training, in tokens.
        original_max_position_embeddings: usize,
    },
}

/// The shape and constants of one decoder. Field names are `config.json`'s; see the [module](self).
///
/// The fields are public so that they can be read. Build one with [`Config::read`], [`Config::from_json`] or
/// [`Config::from_shape`], which validate it. Call [`Config::validate`] after you change a field.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The family, from `model_type` or `architectures`.
    pub model_type: Family,
    /// Width C of the residual stream.
    pub hidden_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// The kind of each layer, first to last.
    pub layer_types: Vec<LayerType>,
    /// Number of tokens that a [`LayerType::SlidingAttention`] layer sees, including the row's own; `None` without such
    /// a layer.
    pub sliding_window: Option<usize>,
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
    /// Scaling of the rotary embedding, if any.
    pub rope_scaling: Option<RopeScaling>,
    /// Whether the head uses the embedding's weights, transposed.
    pub tie_word_embeddings: bool,
    /// Token that begins a text, if the model has one.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a text; empty when the configuration names none.
    pub eos_token_id: Vec<u32>,
    /// The token that other programs use to fill up batches; Ferule never pads.
    pub pad_token_id: Option<u32>,
    /// Standard deviation of random initial weights.
    pub initializer_range: f64,
}

impl Config {
    /// Reads and validates a `config.json`.
    ///
    /// # Errors
    /// [`FormatError::Io`], and those of [`Config::from_json`].
    pub fn read(path: &Path) -> Result<Self, FormatError> {
        let text = std::fs::read_to_string(path).map_err(FormatError::io(path, "read"))?;
        Self::from_json(&text, path)
    }

    /// Whether query, key and value projections have a bias.
    pub fn qkv_bias(&self) -> bool {
        self.model_type == Family::Qwen2
    }

    /// Whether each query and key head goes through an RMSNorm before the rotary embedding.
    pub fn qk_norm(&self) -> bool {
        self.model_type == Family::Qwen3
    }

    /// Width of all query heads together, H × D.
    pub fn query_size(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// Width of all key heads together, K × D; the same for the values.
    pub fn key_value_size(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }

    /// Width of the fused query, key and value rows, (H + 2K) × D.
    pub fn qkv_size(&self) -> usize {
        self.query_size() + 2 * self.key_value_size()
    }

    /// Rotary frequencies in radians per position, `[D/2]`, after scaling, in f64.
    ///
    /// Dimension `i` of a head rotates together with dimension `i + D/2` (Hugging Face's half-split layout).
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
}

#[cfg(test)]
mod tests;
