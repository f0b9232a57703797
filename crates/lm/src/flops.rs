//! Counts the floating-point operations of a model, by the usual convention.
//!
//! Each multiply-add of a product counts as two operations. Norms, rotations and softmax are not counted, nor is
//! recomputation. The head counts only for the rows for which it computes logits; the embedding does not count.

use crate::config::Config;
use crate::layer::Layer;
use crate::lora::LoraConfig;

impl Config {
    /// Number of weights in the matrices of all layers, and in the head.
    fn matrix_parameters(&self) -> (f64, f64) {
        let in_layers: usize = self.tensors().iter().filter(|spec| spec.is_layer_matrix()).map(|spec| spec.len()).sum();
        (in_layers as f64, (self.vocab_size * self.hidden_size) as f64)
    }

    /// Floating-point operations of a forward pass.
    ///
    /// * `tokens`: how many tokens go through the layers.
    /// * `targets`: for how many of them the head computes logits.
    /// * `attention_pairs`: number of visible pairs of a query token and a key token, in one layer.
    pub fn forward_flops(&self, tokens: usize, targets: usize, attention_pairs: usize) -> f64 {
        let (layers, head) = self.matrix_parameters();
        let per_pair: usize = (0..self.num_hidden_layers).map(|layer| Layer::flops_per_pair(self, layer)).sum();
        2.0 * (layers * tokens as f64 + head * targets as f64) + per_pair as f64 * attention_pairs as f64
    }

    /// Floating-point operations of forward and backward: three times those of forward.
    ///
    /// If only adapters are trained, the gradients of matrices are not computed, which saves their share of one forward
    /// pass. Instead, each weight of an adapter costs two multiply-adds per token.
    ///
    /// * `tokens`, `targets`, `attention_pairs`: as in [`Config::forward_flops`].
    pub fn training_flops(
        &self,
        adapters: Option<LoraConfig>,
        tokens: usize,
        targets: usize,
        attention_pairs: usize,
    ) -> f64 {
        let whole = 3.0 * self.forward_flops(tokens, targets, attention_pairs);
        let saved = |lora: LoraConfig| {
            self.forward_flops(tokens, targets, 0) - 4.0 * lora.parameters(self) as f64 * tokens as f64
        };
        whole - adapters.map_or(0.0, saved)
    }
}
