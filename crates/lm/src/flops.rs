//! How much arithmetic a model's work is, counted as everybody counts it.
//!
//! Two operations for each multiply-add of a product; norms, rotations and softmax are left out, and so is
//! recomputation. The head counts for the rows it is asked for, the embedding not at all.

use crate::config::{Config, Part};
use crate::lora::LoraConfig;

impl Config {
    /// Weights in the matrices of all layers, and in the head.
    fn matrix_parameters(&self) -> (f64, f64) {
        let layers = |part: Part| part.is_matrix() && !matches!(part, Part::Embedding | Part::Head);
        let in_layers: usize = self.tensors().iter().filter(|spec| layers(spec.part)).map(|spec| spec.len()).sum();
        (in_layers as f64, (self.vocab_size * self.hidden_size) as f64)
    }

    /// Floating-point operations of a forward pass.
    ///
    /// * `tokens` went through the layers, `targets` of them through the head; `attention_pairs` of query and key met.
    pub fn forward_flops(&self, tokens: usize, targets: usize, attention_pairs: usize) -> f64 {
        let (layers, head) = self.matrix_parameters();
        let attention = 4.0 * (self.num_hidden_layers * self.query_size()) as f64 * attention_pairs as f64;
        2.0 * (layers * tokens as f64 + head * targets as f64) + attention
    }

    /// Floating-point operations of forward and backward: three times forward. Where only adapters learn, no gradient of a matrix is made, and
    /// each weight of a pair is met twice in its place.
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
