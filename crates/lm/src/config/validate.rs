//! The conditions that a configuration must satisfy before anything is computed with it.

use std::path::Path;

use kernels::ops::attention::MAX_HEAD_DIM;

use super::{Config, LayerType, MOST_LAYERS, RopeScaling};
use crate::error::FormatError;

impl Config {
    /// Checks everything that the rest of the program relies on.
    ///
    /// * `path`: where the configuration came from; messages name it.
    ///
    /// # Errors
    /// [`FormatError::Config`] with the field's name, for: a size of zero or beyond that of any model so far, a number
    /// of key heads that does not divide the number of query heads, an odd `head_dim`, a window shorter than the
    /// context, a constant that is not positive, a token outside the vocabulary.
    pub fn validate(&self, path: &Path) -> Result<(), FormatError> {
        let fail = |field: &str, problem: String, hint: &str| Err(FormatError::config(path, field, problem, hint));
        let sizes = [
            ("hidden_size", self.hidden_size, 1 << 16),
            ("num_hidden_layers", self.num_hidden_layers, MOST_LAYERS),
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
        self.validate_layers(path)?;
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

    fn validate_layers(&self, path: &Path) -> Result<(), FormatError> {
        let (kinds, layers) = (self.layer_types.len(), self.num_hidden_layers);
        if kinds != layers {
            let problem = format!("it names {kinds} layers, and num_hidden_layers is {layers}");
            return Err(FormatError::config(path, "layer_types", problem, "name one kind for each layer"));
        }
        let sliding: Vec<usize> =
            (0..layers).filter(|&layer| self.layer_types[layer] == LayerType::SlidingAttention).collect();
        let Some(first) = sliding.first() else { return Ok(()) };
        let Some(window) = self.sliding_window else {
            let problem = format!("is missing, and layer {first} is of the kind sliding_attention");
            return Err(FormatError::config(path, "sliding_window", problem, "compare with the model's release"));
        };
        if window >= self.max_position_embeddings {
            return Ok(());
        }
        let problem = format!(
            "{} of {layers} layers see only the last {window} tokens, which is not supported in a context of {}",
            sliding.len(),
            self.max_position_embeddings
        );
        let hint = format!(
            "up to {window} tokens the model computes the same without a window: set max_position_embeddings to {window}"
        );
        Err(FormatError::config(path, "sliding_window", problem, hint))
    }

    fn validate_scaling(&self, path: &Path) -> Result<(), FormatError> {
        let sound = match self.rope_scaling {
            None => true,
            Some(RopeScaling::Linear { factor }) => (1.0..=1e6).contains(&factor),
            Some(RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            }) => {
                (1.0..=1e6).contains(&factor)
                    && low_freq_factor > 0.0
                    && high_freq_factor > low_freq_factor
                    && high_freq_factor.is_finite()
                    && original_max_position_embeddings > 0
            }
        };
        if sound {
            return Ok(());
        }
        let problem = format!("{:?} is not a scaling", self.rope_scaling);
        let hint = "factor must be 1 to 1e6, and low_freq_factor below high_freq_factor";
        Err(FormatError::config(path, "rope_scaling", problem, hint))
    }
}
