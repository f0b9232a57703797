//! Peak memory of a stage: moments, packed copies, activations, caches, and the copy that a checkpoint writes to disk.
//!
//! All sizes are in bytes. The master weights of all models are counted by the plan, since they stay in memory during the whole run.

use kernels::{Device, Real};
use lm::backward::BackwardBuffers;
use lm::generate::{KvCache, PAGE};
use lm::head::HeadBuffers;
use lm::lora::largest_sum;
use lm::{Activations, Config, Keep};

use super::estimate::Planning;
use crate::recipe::optimisation::Optimisation;
use crate::rollout::SEQUENCES;

/// The smallest number of rows that the scheduler allocates for one forward pass.
pub const SCHEDULER_ROWS: usize = 512;

impl Planning<'_> {
    /// The KV cache of sampling, and the activations of the scheduler's rows.
    pub fn cache_bytes<T: Real>(&self, model: &str, prompts: usize, samples: usize, max_new_tokens: usize) -> usize {
        let (config, prompt) = (self.config(model), self.lengths.prompt.ceil() as usize);
        let pages = SEQUENCES.min(prompts * samples) * (prompt + max_new_tokens).div_ceil(PAGE);
        pages * KvCache::<T>::page_bytes(config) + SCHEDULER_ROWS * activations::<T>(config, Keep::Nothing)
    }

    /// Memory of a model that is only sampled from.
    pub fn sampling_bytes<T: Real>(&self, model: &str, prompts: usize, samples: usize, max_new_tokens: usize) -> usize {
        packed::<T>(self.config(model), 1) + self.cache_bytes::<T>(model, prompts, samples, max_new_tokens)
    }

    /// Memory of a model that only runs forward, `tokens` packed tokens at a time: a teacher or a reference.
    pub fn reading_bytes<T: Real>(&self, model: &str, tokens: usize) -> usize {
        let config = self.config(model);
        packed::<T>(config, 1) + tokens * activations::<T>(config, Keep::Nothing)
    }

    /// Memory of a learner without its master weights: gradient, moments, packed copies of both directions, activations, and the copy
    /// that a checkpoint writes. With adapters, gradient and moments have the adapters' size, and the sum of one matrix with its adapter is added.
    pub fn learning_bytes<T: Real>(&self, model: &str, keys: &Optimisation) -> usize {
        let config = self.config(model);
        let keep = if keys.recompute { Keep::Residuals } else { Keep::Everything };
        let tokens = keys.tokens_per_micro_batch;
        let backward = BackwardBuffers::<T>::new(Device::Cpu, config, 1).size_bytes() + 4 * config.hidden_size;
        let head = 2 * HeadBuffers::<T>::new(Device::Cpu, config).size_bytes();
        let (state, adapters) = match keys.adapters() {
            None => (4 * config.parameters(), 0),
            Some(lora) => {
                let learns = lora.parameters(config);
                (4 * learns, (4 + size_of::<T>()) * learns + 4 * largest_sum(config))
            }
        };
        3 * state
            + 3 * state
            + adapters
            + packed::<T>(config, 2)
            + tokens * (activations::<T>(config, keep) + backward)
            + head
    }
}

/// The packed copies that matrix products use, for one or both directions, and the embedding.
fn packed<T: Real>(config: &Config, directions: usize) -> usize {
    let embedding = config.vocab_size * config.hidden_size;
    let tables = if config.tie_word_embeddings { 1 } else { 2 };
    let layers = config.parameters() - tables * embedding;
    size_of::<T>() * (directions * (layers + embedding) + embedding)
}

/// Activations of one token.
fn activations<T: Real>(config: &Config, keep: Keep) -> usize {
    Activations::<T>::new(Device::Cpu, config, 1, keep).size_bytes()
}
