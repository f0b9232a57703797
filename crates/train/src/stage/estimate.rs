//! The cost of a stage before it runs, counted by the formulas of a run's meters.

use std::collections::BTreeMap;

use lm::Config;

use crate::plan::lengths::Lengths;
use crate::recipe::optimisation::Optimisation;
use crate::recipe::outline::Outline;
use crate::recipe::settings::Settings;

/// One stage's cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Estimate {
    /// Optimiser steps, or files of completions; 0 for a stage without steps.
    pub steps: u64,
    /// Its tokens, completions and operations.
    pub work: Work,
    /// Peak memory in bytes, without the models' master weights.
    pub bytes: usize,
}

/// The tokens, completions and floating-point operations of one stage.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Packed tokens that are trained on.
    pub train_tokens: f64,
    /// Completions that are sampled, validation included.
    pub rollouts: f64,
    /// Tokens of these completions.
    pub sampled_tokens: f64,
    /// Tokens that a teacher samples or scores.
    pub teacher_tokens: f64,
    /// Operations of the learner's forward and backward passes.
    pub training_flops: f64,
    /// Operations of sampling.
    pub sampling_flops: f64,
    /// Operations of the forward passes of a teacher or a reference.
    pub reading_flops: f64,
}

impl Work {
    /// All operations.
    pub fn flops(&self) -> f64 {
        self.training_flops + self.sampling_flops + self.reading_flops
    }

    /// Adds the sampling of `samples` completions for each of `prompts` prompts. `prompt` and `completion` are lengths in tokens.
    pub fn sample(&mut self, config: &Config, prompts: f64, samples: usize, prompt: f64, completion: f64) {
        self.rollouts += prompts * samples as f64;
        self.sampled_tokens += prompts * samples as f64 * completion;
        self.sampling_flops += prompts * sampling_flops(config, 1, samples, prompt, completion);
    }
}

/// Operations of sampling `samples` completions for each of `prompts` prompts. A prompt is computed once for all its completions.
pub fn sampling_flops(config: &Config, prompts: usize, samples: usize, prompt: f64, completion: f64) -> f64 {
    let made = samples as f64 * completion;
    let pairs = prompt * prompt / 2.0 + made * (prompt + completion / 2.0);
    prompts as f64 * config.forward_flops((prompt + made) as usize, made as usize, pairs as usize)
}

/// Sizes of packed sequences.
#[derive(Clone, Copy, Debug, Default)]
pub struct Packed {
    /// Tokens.
    pub tokens: f64,
    /// Tokens that are targets.
    pub targets: f64,
    /// Pairs of a query and a key that attention computes.
    pub pairs: f64,
}

impl Packed {
    /// The sizes of `count` sequences, each a prompt with its completion; lengths are in tokens.
    pub fn sequences(count: f64, prompt: f64, completion: f64) -> Packed {
        let length = prompt + completion;
        Packed { tokens: count * length, targets: count * completion, pairs: count * length * length / 2.0 }
    }

    /// The sizes of `count` groups. A group is its prompt once, and its completions, each with the prompt's last token before it.
    pub fn groups(count: f64, samples: usize, prompt: f64, completion: f64) -> Packed {
        let samples = samples as f64;
        Packed {
            tokens: count * (prompt + samples * (completion + 1.0)),
            targets: count * samples * completion,
            pairs: count * (prompt * prompt / 2.0 + samples * completion * (prompt + completion / 2.0)),
        }
    }
}

/// What an estimate is made from: the recipe, the models' shapes, the lengths of the task's texts.
pub struct Planning<'a> {
    /// The recipe without its stages.
    pub settings: &'a Settings,
    /// Every stage, in order.
    pub stages: &'a [Outline],
    /// The shape of every model.
    pub configs: &'a BTreeMap<String, Config>,
    /// Mean lengths in tokens.
    pub lengths: &'a Lengths,
}

impl Planning<'_> {
    /// A model's shape.
    ///
    /// # Panics
    /// For a name that is not in the recipe. Validation refuses such a recipe.
    pub fn config(&self, model: &str) -> &Config {
        self.configs.get(model).unwrap_or_else(|| panic!("no model \"{model}\""))
    }

    /// Operations of training a model on packed sequences.
    pub fn training_flops(&self, model: &str, keys: &Optimisation, packed: Packed) -> f64 {
        let count = |x: f64| x.round() as usize;
        let Packed { tokens, targets, pairs } = packed;
        self.config(model).training_flops(keys.adapters(), count(tokens), count(targets), count(pairs))
    }

    /// Operations of a forward pass over packed sequences.
    pub fn reading_flops(&self, model: &str, packed: Packed) -> f64 {
        let count = |x: f64| x.round() as usize;
        self.config(model).forward_flops(count(packed.tokens), count(packed.targets), count(packed.pairs))
    }

    /// Adds the validations of a stage of `steps` steps, one after every `every` steps; none for `every` = 0.
    pub fn validate(&self, work: &mut Work, model: &str, steps: u64, every: u64, cases: usize, max_new_tokens: usize) {
        let times = if every == 0 { 0 } else { steps.div_ceil(every) };
        let completion = self.lengths.completion(max_new_tokens);
        work.sample(self.config(model), (times * cases as u64) as f64, 1, self.lengths.prompt, completion);
    }
}
