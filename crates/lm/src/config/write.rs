//! Writes `config.json` so that any release of `transformers` reads it.

use serde_json::{Value, json};

use super::{Config, Family, LayerType, RopeScaling};

impl Config {
    /// The text of a `config.json` from which `transformers` (4 and 5) makes this model.
    pub fn to_json(&self) -> String {
        let eos = match self.eos_token_id.as_slice() {
            [] => Value::Null,
            [id] => json!(id),
            ids => json!(ids),
        };
        let scaling = match self.rope_scaling {
            None => Value::Null,
            Some(RopeScaling::Linear { factor }) => json!({ "rope_type": "linear", "factor": factor }),
            Some(RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            }) => {
                json!({
                    "rope_type": "llama3",
                    "factor": factor,
                    "low_freq_factor": low_freq_factor,
                    "high_freq_factor": high_freq_factor,
                    "original_max_position_embeddings": original_max_position_embeddings,
                })
            }
        };
        let mut fields = json!({
            "architectures": [self.model_type.architecture()],
            "attention_dropout": 0.0,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": eos,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "initializer_range": self.initializer_range,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.max_position_embeddings,
            "model_type": self.model_type.model_type(),
            "num_attention_heads": self.num_attention_heads,
            "num_hidden_layers": self.num_hidden_layers,
            "num_key_value_heads": self.num_key_value_heads,
            "pad_token_id": self.pad_token_id,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_scaling": scaling,
            "rope_theta": self.rope_theta,
            "tie_word_embeddings": self.tie_word_embeddings,
            "use_cache": true,
            "vocab_size": self.vocab_size,
        });
        let first_sliding = self.layer_types.iter().position(|&kind| kind == LayerType::SlidingAttention);
        match self.model_type {
            Family::Llama => {
                fields["attention_bias"] = json!(false);
                fields["mlp_bias"] = json!(false);
            }
            Family::Mistral => fields["sliding_window"] = Value::Null,
            Family::Qwen2 => fields["use_sliding_window"] = json!(first_sliding.is_some()),
            Family::Qwen3 => {
                fields["attention_bias"] = json!(false);
                fields["use_sliding_window"] = json!(first_sliding.is_some());
            }
        }
        if let Some(first) = first_sliding {
            let names: Vec<&str> = self.layer_types.iter().map(|kind| kind.name()).collect();
            fields["layer_types"] = json!(names);
            fields["sliding_window"] = json!(self.sliding_window);
            if matches!(self.model_type, Family::Qwen2 | Family::Qwen3) {
                // Releases that do not know `layer_types` read this field.
                fields["max_window_layers"] = json!(first);
            }
        }
        serde_json::to_string_pretty(&fields).expect("a JSON value serialises") + "\n"
    }
}
