//! The keys of optimisation, which every training stage has.

use lm::lora::LoraConfig;
use lm::optimizer::Hyperparameters;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schedule::Schedule;

/// How steps are taken. Every training stage has these keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Optimisation {
    /// The schedule's peak learning rate.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub learning_rate: f32,
    /// The course of the learning rate after warm-up.
    pub schedule: Schedule,
    /// Steps over which the learning rate rises to its peak.
    #[schemars(range(max = 10_000_000))]
    pub warmup_steps: u64,
    /// Decoupled weight decay, of matrices only.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub weight_decay: f32,
    /// AdamW's decay of the second moment.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1))]
    pub beta2: f32,
    /// Gradients of a greater global norm are scaled down to this one.
    #[schemars(range(max = 1e6), extend("exclusiveMinimum" = 0))]
    pub max_grad_norm: f32,
    /// Packed tokens in one forward and backward pass.
    #[schemars(range(min = 1, max = 1_048_576))]
    pub tokens_per_micro_batch: usize,
    /// Steps between checkpoints.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub checkpoint_every_steps: u64,
    /// Whether to recompute activations in the backward pass: slower, for a fraction of the memory.
    pub recompute: bool,
    /// Rank of the low-rank adapters that are trained in place of the weights (LoRA); 0 for none.
    #[schemars(range(max = 4_096))]
    pub lora_rank: usize,
    /// The adapters' output is scaled by `lora_alpha / lora_rank`.
    #[schemars(range(max = 1e6), extend("exclusiveMinimum" = 0))]
    pub lora_alpha: f32,
}

impl Default for Optimisation {
    fn default() -> Self {
        Self {
            learning_rate: 1e-3,
            schedule: Schedule::Cosine,
            warmup_steps: 10,
            weight_decay: 0.1,
            beta2: 0.95,
            max_grad_norm: 1.0,
            tokens_per_micro_batch: 4096,
            checkpoint_every_steps: 25,
            recompute: false,
            lora_rank: 0,
            lora_alpha: 16.0,
        }
    }
}

impl Optimisation {
    /// The adapters that are trained in place of the weights; none without a `lora_rank`.
    pub fn adapters(&self) -> Option<LoraConfig> {
        (self.lora_rank > 0).then_some(LoraConfig { rank: self.lora_rank, alpha: self.lora_alpha })
    }

    /// The optimiser's hyperparameters among the keys.
    pub fn hyperparameters(&self) -> Hyperparameters {
        Hyperparameters {
            beta2: self.beta2,
            weight_decay: self.weight_decay,
            max_grad_norm: self.max_grad_norm,
            ..Hyperparameters::default()
        }
    }
}
