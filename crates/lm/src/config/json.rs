//! Reads `config.json` as any release of `transformers` writes it.
//!
//! Reading takes two steps: first the fields as they are in the file (`Raw`, every field optional), then the resolved
//! [`Config`]. A field that asks for arithmetic which Ferule does not have gives an error that names the field. Fields
//! that do not change the forward pass (`use_cache`, dropouts, `torch_dtype` …) are ignored.

use std::path::Path;

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::{Config, Family, LayerType, MOST_LAYERS, RopeScaling};
use crate::error::FormatError;

/// The relevant fields of `config.json`, as they are in the file.
#[derive(Deserialize)]
struct Raw {
    architectures: Option<Vec<String>>,
    model_type: Option<String>,
    hidden_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    intermediate_size: Option<usize>,
    vocab_size: Option<usize>,
    max_position_embeddings: Option<usize>,
    rms_norm_eps: Option<f64>,
    rope_theta: Option<f64>,
    rope_scaling: Option<Map<String, Value>>,
    rope_parameters: Option<Map<String, Value>>,
    tie_word_embeddings: Option<bool>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    hidden_act: Option<String>,
    /// `None`: the field is absent. `Some(None)`: it is null. Mistral's default window differs between the two.
    #[serde(default, deserialize_with = "present")]
    sliding_window: Option<Option<usize>>,
    use_sliding_window: Option<bool>,
    max_window_layers: Option<usize>,
    layer_types: Option<Vec<String>>,
    partial_rotary_factor: Option<f64>,
    bos_token_id: Option<Ids>,
    eos_token_id: Option<Ids>,
    pad_token_id: Option<Ids>,
    initializer_range: Option<f64>,
    quantization_config: Option<Value>,
}

/// A token id or a list of them.
#[derive(Deserialize)]
#[serde(untagged)]
enum Ids {
    One(i64),
    Many(Vec<i64>),
}

impl Ids {
    /// The ids, without the -1 that means "none" in some configurations.
    fn list(self, field: &str, path: &Path) -> Result<Vec<u32>, FormatError> {
        let ids = match self {
            Ids::One(id) => vec![id],
            Ids::Many(ids) => ids,
        };
        let fail = |id| FormatError::config(path, field, format!("{id} is not a token id"), "ids count from 0");
        ids.into_iter().filter(|&id| id != -1).map(|id| u32::try_from(id).map_err(|_| fail(id))).collect()
    }
}

fn present<'de, D: Deserializer<'de>>(source: D) -> Result<Option<Option<usize>>, D::Error> {
    Option::<usize>::deserialize(source).map(Some)
}

impl Config {
    /// Reads and validates the text of a `config.json`.
    ///
    /// * `path`: where the text came from; messages name it.
    ///
    /// # Errors
    /// [`FormatError::UnknownArchitecture`] for a family that Ferule does not have. [`FormatError::Config`], with the
    /// field, for a value that is missing, of the wrong kind, out of range, or not supported.
    pub fn from_json(text: &str, path: &Path) -> Result<Self, FormatError> {
        let source = &mut serde_json::Deserializer::from_str(text);
        let hint = "is this a model's config.json?";
        let raw: Raw = serde_path_to_error::deserialize(&mut *source).map_err(|error| {
            let field = error.path().to_string();
            FormatError::config(path, &field, error.into_inner().to_string(), hint)
        })?;
        source.end().map_err(|error| FormatError::malformed(path, error.to_string(), hint))?;
        raw.resolve(path)
    }
}

impl Raw {
    fn resolve(self, path: &Path) -> Result<Config, FormatError> {
        let model_type = self.family(path)?;
        self.refuse_unsupported(model_type, path)?;
        let need = |value: Option<usize>, field: &str| {
            value.ok_or_else(|| FormatError::config(path, field, "is missing", "is this a model's config.json?"))
        };
        let hidden_size = need(self.hidden_size, "hidden_size")?;
        let heads = need(self.num_attention_heads, "num_attention_heads")?;
        let head_dim = match self.head_dim {
            Some(width) => width,
            None if model_type == Family::Qwen3 => 128,
            None if heads > 0 && hidden_size.is_multiple_of(heads) => hidden_size / heads,
            None => {
                let problem = format!("{heads} does not divide hidden_size {hidden_size}, and there is no head_dim");
                return Err(FormatError::config(path, "num_attention_heads", problem, "give head_dim"));
            }
        };
        let context = match model_type {
            Family::Llama => 2048,
            Family::Mistral => 131_072,
            Family::Qwen2 | Family::Qwen3 => 32_768,
        };
        let (rope_theta, rope_scaling) = self.rope(path)?;
        let num_hidden_layers = need(self.num_hidden_layers, "num_hidden_layers")?;
        let (layer_types, sliding_window) = self.layers(model_type, num_hidden_layers, path)?;
        let ids = |ids: Option<Ids>, field| ids.map_or(Ok(Vec::new()), |ids| ids.list(field, path));
        let config = Config {
            model_type,
            hidden_size,
            num_hidden_layers,
            layer_types,
            sliding_window,
            num_attention_heads: heads,
            num_key_value_heads: self.num_key_value_heads.unwrap_or(heads),
            head_dim,
            intermediate_size: need(self.intermediate_size, "intermediate_size")?,
            vocab_size: need(self.vocab_size, "vocab_size")?,
            max_position_embeddings: self.max_position_embeddings.unwrap_or(context),
            rms_norm_eps: self.rms_norm_eps.unwrap_or(1e-6),
            rope_theta,
            rope_scaling,
            tie_word_embeddings: self.tie_word_embeddings.unwrap_or(false),
            bos_token_id: ids(self.bos_token_id, "bos_token_id")?.first().copied(),
            eos_token_id: ids(self.eos_token_id, "eos_token_id")?,
            pad_token_id: ids(self.pad_token_id, "pad_token_id")?.first().copied(),
            initializer_range: self.initializer_range.unwrap_or(0.02),
        };
        config.validate(path)?;
        Ok(config)
    }

    /// The kind of each layer, and the window of those that slide.
    ///
    /// `layer_types` decides if it is given. Without it, all of Mistral's layers are sliding if there is a window.
    /// Qwen's layers from `max_window_layers` on are sliding if `use_sliding_window` is true.
    fn layers(
        &self,
        family: Family,
        count: usize,
        path: &Path,
    ) -> Result<(Vec<LayerType>, Option<usize>), FormatError> {
        let window = self.sliding_window.unwrap_or((family == Family::Mistral).then_some(4096));
        let slides = |layer: usize| match family {
            Family::Llama => false,
            Family::Mistral => window.is_some(),
            Family::Qwen2 | Family::Qwen3 => {
                let first = self.max_window_layers.unwrap_or(28);
                window.is_some() && self.use_sliding_window == Some(true) && layer >= first
            }
        };
        let kinds = match &self.layer_types {
            Some(names) => {
                let kinds = names.iter().enumerate().map(|(layer, name)| {
                    let kind = LayerType::ALL.into_iter().find(|kind| kind.name() == name);
                    kind.ok_or_else(|| {
                        let (field, problem) = (format!("layer_types[{layer}]"), format!("`{name}` is not supported"));
                        FormatError::config(path, &field, problem, "supported are full_attention and sliding_attention")
                    })
                });
                kinds.collect::<Result<Vec<_>, _>>()?
            }
            None => {
                let kind = |layer| if slides(layer) { LayerType::SlidingAttention } else { LayerType::FullAttention };
                (0..count.min(MOST_LAYERS)).map(kind).collect()
            }
        };
        let slides = kinds.contains(&LayerType::SlidingAttention);
        Ok((kinds, window.filter(|_| slides)))
    }

    /// The family, from `architectures` or `model_type`; if both are given they must agree.
    fn family(&self, path: &Path) -> Result<Family, FormatError> {
        let unknown = |found: String| FormatError::UnknownArchitecture { path: path.to_path_buf(), found };
        let architecture = self.architectures.as_ref().and_then(|list| list.first());
        if let Some(name) = architecture {
            let family = Family::ALL.into_iter().find(|family| family.architecture() == name);
            let family = family.ok_or_else(|| unknown(format!("`{name}`")))?;
            return match &self.model_type {
                Some(kind) if kind != family.model_type() => {
                    let problem = format!("`{kind}` contradicts architectures = `{name}`");
                    Err(FormatError::config(path, "model_type", problem, "the two fields must name one family"))
                }
                _ => Ok(family),
            };
        }
        match &self.model_type {
            Some(kind) => {
                let family = Family::ALL.into_iter().find(|family| family.model_type() == kind);
                family.ok_or_else(|| unknown(format!("`{kind}`")))
            }
            None => {
                let problem = "is missing, and so is `architectures`";
                Err(FormatError::config(path, "model_type", problem, "is this a model's config.json?"))
            }
        }
    }

    /// Refuses fields that would change the arithmetic in a way that is not implemented.
    fn refuse_unsupported(&self, family: Family, path: &Path) -> Result<(), FormatError> {
        let fail = |field: &str, problem: &str, hint: &str| Err(FormatError::config(path, field, problem, hint));
        if let Some(act) = self.hidden_act.as_deref().filter(|act| !["silu", "swish"].contains(act)) {
            return fail("hidden_act", &format!("`{act}` is not supported"), "only SwiGLU models (`silu`) are");
        }
        if self.attention_bias == Some(true) && matches!(family, Family::Llama | Family::Qwen3) {
            let problem = "true is not supported: it puts a bias on the output projection too";
            return fail("attention_bias", problem, "Qwen2's biases on query, key and value need no such field");
        }
        if self.mlp_bias == Some(true) {
            return fail("mlp_bias", "true is not supported", "no released model of these families has it");
        }
        if self.partial_rotary_factor.is_some_and(|share| share != 1.0) {
            return fail("partial_rotary_factor", "only 1 is supported", "whole heads are turned");
        }
        if self.quantization_config.as_ref().is_some_and(|value| !value.is_null()) {
            let hint = "take the unquantised release of the model, or a GGUF file";
            return fail("quantization_config", "quantised safetensors are not supported", hint);
        }
        Ok(())
    }

    /// Base and scaling, from `rope_parameters` (transformers 5) or from `rope_theta` and `rope_scaling` (earlier
    /// versions).
    fn rope(&self, path: &Path) -> Result<(f64, Option<RopeScaling>), FormatError> {
        let (field, table) = match (&self.rope_parameters, &self.rope_scaling) {
            (Some(table), _) => ("rope_parameters", table),
            (None, Some(table)) => ("rope_scaling", table),
            (None, None) => return Ok((self.rope_theta.unwrap_or(10_000.0), None)),
        };
        let fail = |key: &str, problem: String, hint: &str| {
            FormatError::config(path, &format!("{field}.{key}"), problem, hint)
        };
        let number = |key: &str| {
            let value = table.get(key).and_then(Value::as_f64);
            value.ok_or_else(|| fail(key, "is missing or not a number".into(), "compare with the model's release"))
        };
        let theta = match table.get("rope_theta") {
            Some(_) => number("rope_theta")?,
            None => self.rope_theta.unwrap_or(10_000.0),
        };
        if table.get("partial_rotary_factor").is_some_and(|share| share.as_f64() != Some(1.0)) {
            return Err(fail("partial_rotary_factor", "only 1 is supported".into(), "whole heads are turned"));
        }
        let named = ["rope_type", "type"].into_iter().filter_map(|key| Some((key, table.get(key)?)));
        let mut kind = "default";
        for (key, value) in named.collect::<Vec<_>>().into_iter().rev() {
            let wrong = || fail(key, format!("{value} is not a text"), "compare with the model's release");
            kind = value.as_str().ok_or_else(wrong)?;
        }
        let scaling = match kind {
            "default" => None,
            "linear" => Some(RopeScaling::Linear { factor: number("factor")? }),
            "llama3" => Some(RopeScaling::Llama3 {
                factor: number("factor")?,
                low_freq_factor: number("low_freq_factor")?,
                high_freq_factor: number("high_freq_factor")?,
                original_max_position_embeddings: {
                    let key = "original_max_position_embeddings";
                    let whole = number(key)?;
                    if whole.fract() != 0.0 || !(1.0..=1e9).contains(&whole) {
                        return Err(fail(key, format!("{whole} is not a context"), "compare with the model's release"));
                    }
                    whole as usize
                },
            }),
            other => {
                let hint = "supported are `default`, `linear` and `llama3`";
                return Err(fail("rope_type", format!("`{other}` is not supported"), hint));
            }
        };
        Ok((theta, scaling))
    }
}
