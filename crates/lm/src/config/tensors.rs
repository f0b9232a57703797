//! The one table of a model's tensors: [`Config::tensors`].
//!
//! Parameters, gradients, moments and the checkpoint formats are all derived from this list; there is no second one.
//! The order is a promise: within a layer the query, key and value weights stand next to each other, so do their
//! biases, and so do the gate and up weights. Laid out one after the other in an arena, each such group is one
//! contiguous row-major matrix `[sum of rows, columns]`, and one product computes all of it.
//!
//! Read next: `crate::checkpoint` (filling the tensors from a file).

use super::Config;

/// What a tensor is for. Weights are `[out, in]`, as Hugging Face stores them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// Token embedding, `[V, C]`; with tied embeddings the head too.
    Embedding,
    /// RMSNorm before attention, `[C]`.
    InputNorm,
    /// Query projection, `[H × D, C]`.
    Query,
    /// Key projection, `[K × D, C]`.
    Key,
    /// Value projection, `[K × D, C]`.
    Value,
    /// Query bias, `[H × D]`; Qwen2 only.
    QueryBias,
    /// Key bias, `[K × D]`; Qwen2 only.
    KeyBias,
    /// Value bias, `[K × D]`; Qwen2 only.
    ValueBias,
    /// RMSNorm of each query head, `[D]`; Qwen3 only.
    QueryNorm,
    /// RMSNorm of each key head, `[D]`; Qwen3 only.
    KeyNorm,
    /// Output projection of attention, `[C, H × D]`.
    Output,
    /// RMSNorm before the SwiGLU, `[C]`.
    PostAttentionNorm,
    /// Gate of the SwiGLU, `[intermediate_size, C]`.
    Gate,
    /// Up projection of the SwiGLU, `[intermediate_size, C]`.
    Up,
    /// Down projection of the SwiGLU, `[C, intermediate_size]`.
    Down,
    /// RMSNorm before the head, `[C]`.
    FinalNorm,
    /// Head, `[V, C]`; absent when tied to the embedding.
    Head,
    /// From the residual stream to a teacher's, `[C of the teacher, C]`. Never in a configuration's table: see
    /// [`crate::Arena::with_projection`].
    Projection,
}

impl Part {
    /// Whether the tensor is a matrix. Norm scales and biases are not; they are usually kept from weight decay.
    pub fn is_matrix(self) -> bool {
        !self.is_norm() && !matches!(self, Part::QueryBias | Part::KeyBias | Part::ValueBias)
    }

    /// Whether the tensor is the scale of an RMSNorm, which starts at one.
    pub fn is_norm(self) -> bool {
        use Part::*;
        matches!(self, InputNorm | QueryNorm | KeyNorm | PostAttentionNorm | FinalNorm)
    }

    /// The name within a layer, or the whole name of a tensor outside the layers.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Part::Embedding => "model.embed_tokens.weight",
            Part::InputNorm => "input_layernorm.weight",
            Part::Query => "self_attn.q_proj.weight",
            Part::Key => "self_attn.k_proj.weight",
            Part::Value => "self_attn.v_proj.weight",
            Part::QueryBias => "self_attn.q_proj.bias",
            Part::KeyBias => "self_attn.k_proj.bias",
            Part::ValueBias => "self_attn.v_proj.bias",
            Part::QueryNorm => "self_attn.q_norm.weight",
            Part::KeyNorm => "self_attn.k_norm.weight",
            Part::Output => "self_attn.o_proj.weight",
            Part::PostAttentionNorm => "post_attention_layernorm.weight",
            Part::Gate => "mlp.gate_proj.weight",
            Part::Up => "mlp.up_proj.weight",
            Part::Down => "mlp.down_proj.weight",
            Part::FinalNorm => "model.norm.weight",
            Part::Head => "lm_head.weight",
            Part::Projection => "projection.weight",
        }
    }
}

/// One tensor of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Hugging Face's name, such as `model.layers.0.self_attn.q_proj.weight`.
    pub name: String,
    /// Shape, outermost dimension first; one or two dimensions.
    pub shape: Vec<usize>,
    /// What it is for.
    pub part: Part,
    /// Its layer, counted from 0; none for embedding, final norm and head.
    pub layer: Option<usize>,
}

impl TensorSpec {
    /// Number of elements.
    #[expect(clippy::len_without_is_empty, reason = "a tensor of a valid configuration is never empty")]
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

impl Config {
    /// Every tensor of the model in the order described in the [module](self).
    ///
    /// Outside the layers come first the embedding, last the final norm and, when untied, the head.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let mut table = vec![self.tensor(Part::Embedding, None)];
        for layer in 0..self.num_hidden_layers {
            table.extend(self.layer_parts().into_iter().map(|part| self.tensor(part, Some(layer))));
        }
        table.push(self.tensor(Part::FinalNorm, None));
        if !self.tie_word_embeddings {
            table.push(self.tensor(Part::Head, None));
        }
        table
    }

    /// The parts of one layer, in table order.
    pub fn layer_parts(&self) -> Vec<Part> {
        use Part::*;
        let mut parts = vec![InputNorm, Query, Key, Value];
        if self.qkv_bias() {
            parts.extend([QueryBias, KeyBias, ValueBias]);
        }
        if self.qk_norm() {
            parts.extend([QueryNorm, KeyNorm]);
        }
        parts.extend([Output, PostAttentionNorm, Gate, Up, Down]);
        parts
    }

    pub(crate) fn tensor(&self, part: Part, layer: Option<usize>) -> TensorSpec {
        let (hidden, inner) = (self.hidden_size, self.intermediate_size);
        let (query, key_value) = (self.query_size(), self.key_value_size());
        let shape = match part {
            Part::Embedding | Part::Head => vec![self.vocab_size, hidden],
            Part::InputNorm | Part::PostAttentionNorm | Part::FinalNorm => vec![hidden],
            Part::Query => vec![query, hidden],
            Part::Key | Part::Value => vec![key_value, hidden],
            Part::QueryBias => vec![query],
            Part::KeyBias | Part::ValueBias => vec![key_value],
            Part::QueryNorm | Part::KeyNorm => vec![self.head_dim],
            Part::Output => vec![hidden, query],
            Part::Gate | Part::Up => vec![inner, hidden],
            Part::Down => vec![hidden, inner],
            Part::Projection => unreachable!("no configuration has a projection to another model"),
        };
        let name = match layer {
            Some(layer) => format!("model.layers.{layer}.{}", part.suffix()),
            None => part.suffix().to_string(),
        };
        TensorSpec { name, shape, part, layer }
    }
}
