//! How much arithmetic a model's work is, counted as the field counts it.
//!
//! Two operations for each multiply-add of a product. Norms, rotations and softmax are left out, and so is
//! recomputation. The head counts for the rows it is asked for, the embedding not at all.

use crate::config::Config;
use crate::layer::Layer;
use crate::lora::LoraConfig;

impl Config {
    /// Weights in the matrices of all layers, and in the head.
    fn matrix_parameters(&self) -> (f64, f64) {
        let in_layers: usize = self.tensors().iter().filter(|spec| spec.is_layer_matrix()).map(|spec| spec.len()).sum();
        (in_layers as f64, (self.vocab_size * self.hidden_size) as f64)
    }

    /// Floating-point operations of a forward pass.
    ///
    /// * `tokens`: how many go through the layers.
    /// * `targets`: for how many the head computes logits.
    /// * `attention_pairs`: how many pairs of a query and a key meet, in one layer.
    pub fn forward_flops(&self, tokens: usize, targets: usize, attention_pairs: usize) -> f64 {
        let (layers, head) = self.matrix_parameters();
        let per_pair: usize = (0..self.num_hidden_layers).map(|layer| Layer::flops_per_pair(self, layer)).sum();
        2.0 * (layers * tokens as f64 + head * targets as f64) + per_pair as f64 * attention_pairs as f64
    }

    /// Floating-point operations of forward and backward: three times forward.
    ///
    /// Where only adapters learn, no gradient of a matrix is made, and each weight of an adapter is used twice in its
    /// place.
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
