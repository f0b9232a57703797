//! The shape of a model that starts from random weights. A recipe or a benchmark gives a [`Shape`]; other fields have
//! defaults.
//!
//! Read next: [`Config::from_shape`].

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Config, Family, LayerType};
use crate::error::FormatError;

/// What a recipe gives of a model that starts from random weights, with the names of `config.json`.
///
/// Only the first three fields must be given. `vocab_size` may be left out where the recipe's tokenizer determines it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Width C of the residual stream.
    #[schemars(range(min = 1, max = 65_536))]
    pub hidden_size: usize,
    /// Number of layers.
    #[schemars(range(min = 1, max = 1_024))]
    pub num_hidden_layers: usize,
    /// Number H of query heads.
    #[schemars(range(min = 1, max = 1_024))]
    pub num_attention_heads: usize,
    /// `llama` (default), `mistral`, `qwen2` or `qwen3`.
    #[serde(default = "llama")]
    pub model_type: String,
    /// Number K of key and value heads; H when absent.
    #[schemars(range(min = 1, max = 1_024))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_key_value_heads: Option<usize>,
    /// Width D of a head; C / H when absent.
    #[schemars(range(min = 1, max = 4_096))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<usize>,
    /// Width of the SwiGLU; 8/3 × C rounded up to a multiple of 64 when absent.
    #[schemars(range(min = 1, max = 1_048_576))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intermediate_size: Option<usize>,
    /// Number V of tokens; the tokenizer's when absent.
    #[schemars(range(min = 1, max = 1_048_576))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vocab_size: Option<usize>,
    /// Longest context in tokens.
    #[schemars(range(min = 1, max = 16_777_216))]
    #[serde(default = "context")]
    pub max_position_embeddings: usize,
    /// Added to the mean square inside every RMSNorm.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0))]
    #[serde(default = "eps")]
    pub rms_norm_eps: f64,
    /// Base of the rotary embedding's wavelengths.
    #[schemars(range(min = 1.0, max = 1e12))]
    #[serde(default = "theta")]
    pub rope_theta: f64,
    /// Whether the head is the embedding, transposed.
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// Standard deviation of the random weights.
    #[schemars(range(min = 0.0, max = 100.0))]
    #[serde(default = "spread")]
    pub initializer_range: f64,
}

fn llama() -> String {
    Family::Llama.model_type().to_string()
}
fn context() -> usize {
    2048
}
fn eps() -> f64 {
    1e-5
}
fn theta() -> f64 {
    10_000.0
}
fn spread() -> f64 {
    0.02
}

impl Config {
    /// The configuration of a model with random weights.
    ///
    /// * `vocab_size`: the number of the tokenizer's tokens. It is used if `shape` gives no size; it may not exceed the
    ///   size that `shape` gives.
    /// * `path`: the recipe, which messages name.
    ///
    /// The ids of special tokens are empty; the caller that trains the tokenizer fills them in.
    ///
    /// # Errors
    /// [`FormatError::UnknownArchitecture`]; [`FormatError::Config`] for the reasons of [`Config::validate`], for a
    /// number of heads that does not divide the width, and for a vocabulary size that is unknown or smaller than the
    /// tokenizer's.
    pub fn from_shape(shape: &Shape, vocab_size: Option<usize>, path: &Path) -> Result<Self, FormatError> {
        let family = Family::ALL.into_iter().find(|family| family.model_type() == shape.model_type);
        let model_type = family.ok_or_else(|| FormatError::UnknownArchitecture {
            path: path.to_path_buf(),
            found: format!("`{}`", shape.model_type),
        })?;
        let heads = shape.num_attention_heads;
        let head_dim = match shape.head_dim {
            Some(width) => width,
            None if heads > 0 && shape.hidden_size.is_multiple_of(heads) => shape.hidden_size / heads,
            None => {
                let problem = format!("{heads} does not divide hidden_size {}", shape.hidden_size);
                let hint = "choose another number of heads, or give head_dim";
                return Err(FormatError::config(path, "num_attention_heads", problem, hint));
            }
        };
        let vocab_size = match (shape.vocab_size, vocab_size) {
            (Some(rows), Some(tokens)) if rows < tokens => {
                let problem = format!("{rows} is smaller than the tokenizer's {tokens} tokens");
                return Err(FormatError::config(path, "vocab_size", problem, "leave it out to take the tokenizer's"));
            }
            (Some(rows), _) => rows,
            (None, Some(tokens)) => tokens,
            (None, None) => {
                let hint = "give vocab_size, or a tokenizer";
                return Err(FormatError::config(path, "vocab_size", "is not given", hint));
            }
        };
        let config = Config {
            model_type,
            hidden_size: shape.hidden_size,
            num_hidden_layers: shape.num_hidden_layers,
            layer_types: LayerType::full(shape.num_hidden_layers),
            sliding_window: None,
            num_attention_heads: heads,
            num_key_value_heads: shape.num_key_value_heads.unwrap_or(heads),
            head_dim,
            intermediate_size: shape
                .intermediate_size
                .unwrap_or_else(|| shape.hidden_size.saturating_mul(8).div_ceil(3).next_multiple_of(64)),
            vocab_size,
            max_position_embeddings: shape.max_position_embeddings,
            rms_norm_eps: shape.rms_norm_eps,
            rope_theta: shape.rope_theta,
            rope_scaling: None,
            tie_word_embeddings: shape.tie_word_embeddings,
            bos_token_id: None,
            eos_token_id: Vec::new(),
            pad_token_id: None,
            initializer_range: shape.initializer_range,
        };
        config.validate(path)?;
        Ok(config)
    }
}
