//! How a training stage takes its steps: the same keys in every one.

use lm::lora::LoraConfig;
use lm::optimizer::Hyperparameters;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schedule::Schedule;

/// How a stage's steps are taken; the same keys in every training stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Optimisation {
    /// The schedule's highest rate.
    #[schemars(range(min = 0.0))]
    pub learning_rate: f32,
    /// How the rate goes after warm-up.
    pub schedule: Schedule,
    /// Steps over which the rate rises.
    pub warmup_steps: u64,
    /// Decoupled weight decay of matrices.
    #[schemars(range(min = 0.0))]
    pub weight_decay: f32,
    /// Decay of the second moment.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1))]
    pub beta2: f32,
    /// Gradients are scaled down to this global norm.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub max_grad_norm: f32,
    /// Packed tokens that go through the model at a time.
    #[schemars(range(min = 1))]
    pub tokens_per_micro_batch: usize,
    /// Steps between checkpoints.
    #[schemars(range(min = 1))]
    pub checkpoint_every_steps: u64,
    /// Recompute layers in backward: slower, a fraction of the memory.
    pub recompute: bool,
    /// Width of low-rank adapters that learn in place of the weights (LoRA); 0 for none.
    pub lora_rank: usize,
    /// What adapters add is weighed by `lora_alpha / lora_rank`.
    #[schemars(extend("exclusiveMinimum" = 0))]
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
    /// The adapters that learn in place of the weights, where there are any.
    pub fn adapters(&self) -> Option<LoraConfig> {
        (self.lora_rank > 0).then_some(LoraConfig { rank: self.lora_rank, alpha: self.lora_alpha })
    }

    /// The optimiser's part.
    pub fn hyperparameters(&self) -> Hyperparameters {
        Hyperparameters {
            beta2: self.beta2,
            weight_decay: self.weight_decay,
            max_grad_norm: self.max_grad_norm,
            ..Hyperparameters::default()
        }
    }
}
