//! The tensors of a whole decoder: [`Layout`], the one table from which everything about weights is derived.
//!
//! The order is: embedding, layers, final norm, and the head if it is not tied to the embedding. The blocks of a layer
//! declare the layer's tensors (`layer/attention.rs`, `layer/mlp.rs`).
//!
//! Read next: `params.rs` (arenas laid out by the table), then [`crate::checkpoint`] (filling the tensors from a file).

use crate::config::Config;
use crate::layer::Layer;
use crate::table::{GroupId, Table, TensorRole, TensorSpec};

/// Name of the head. Some releases store a copy of it although it is tied to the embedding.
pub(crate) const HEAD: &str = "lm_head.weight";

/// A decoder's table of tensors, and where each part of the decoder finds its operands in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    pub table: Table,
    /// Token embedding `[V, C]`.
    pub embedding: GroupId,
    /// The layers, in order.
    pub layers: Vec<Layer>,
    /// Scale of the RMSNorm before the head, `[C]`.
    pub final_norm: GroupId,
    /// The head `[V, C]`; it is the embedding's group if the two are tied.
    pub head: GroupId,
}

impl Layout {
    /// The layout of a model of this configuration.
    pub fn of(config: &Config) -> Self {
        let (vocabulary, hidden) = (config.vocab_size, config.hidden_size);
        let mut table = Table::default();
        let single = |table: &mut Table, role, name, gguf, shape: &[usize]| {
            table.group(None, [TensorSpec::new(role, name, gguf, shape)])
        };
        let embedding = single(
            &mut table,
            TensorRole::Embedding,
            "model.embed_tokens.weight",
            "token_embd.weight",
            &[vocabulary, hidden],
        );
        let layers = (0..config.num_hidden_layers).map(|layer| Layer::declare(&mut table, config, layer)).collect();
        let final_norm = single(&mut table, TensorRole::Norm, "model.norm.weight", "output_norm.weight", &[hidden]);
        let head = match config.tie_word_embeddings {
            true => embedding,
            false => single(&mut table, TensorRole::Head, HEAD, "output.weight", &[vocabulary, hidden]),
        };
        Self { table, embedding, layers, final_norm, head }
    }
}

impl Config {
    /// Every tensor of the model, in the order of the arenas; see the [module](self).
    pub fn tensors(&self) -> Vec<TensorSpec> {
        Layout::of(self).table.into_specs()
    }

    /// Number of parameters. A tied head is counted once, with the embedding.
    pub fn parameters(&self) -> usize {
        Layout::of(self).table.len()
    }
}
