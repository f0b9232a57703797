//! How fast this machine trains and samples models of a given shape: a timed training step and a short timed round of sampling.
//!
//! The probe has at most two layers, a small vocabulary and limited widths, so that it is short and fits into memory for any model;
//! the rate of operations hardly depends on them. It takes the best of a few tries, since other work on the machine can only slow a try down.

use std::path::Path;
use std::time::Instant;

use kernels::rng::Key;
use kernels::{Queue, Real};
use lm::generate::{Flow, Limits, Request, Scheduler, generate};
use lm::optimizer::Hyperparameters;
use lm::{Arena, Batch, Config, Keep, Model, Role};

use super::lengths::Lengths;
use crate::prompting::plain_sampling;
use crate::stage::estimate::sampling_flops;
use crate::step::{Learner, Signals};

/// The largest number of layers of the probe.
const LAYERS: usize = 2;
/// The largest widths of the probe: of the residual stream, of the SwiGLU and of a head; and its largest number of heads.
const HIDDEN: usize = 1024;
const INTERMEDIATE: usize = 4096;
const HEAD: usize = 128;
const HEADS: usize = 16;
/// The largest number of parameters of the probe's embedding.
const EMBEDDING: usize = 4 << 20;
/// Packed tokens of the training step.
const TOKENS: usize = 2048;
/// Sequences that are sampled at once.
const SEQUENCES: usize = 128;
/// Tokens that are sampled of each sequence.
const NEW_TOKENS: usize = 24;
/// Tries of each measurement.
const TRIES: usize = 3;

/// Rates in floating-point operations a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Speed {
    /// Rate of forward and backward passes.
    pub training: f64,
    /// Rate of prefill and decode of many sequences.
    pub sampling: f64,
}

impl Speed {
    /// Seconds that operations of training, or of a teacher's forward passes, take.
    pub fn training_seconds(&self, flops: f64) -> f64 {
        flops / self.training
    }

    /// Seconds that operations of sampling take.
    pub fn sampling_seconds(&self, flops: f64) -> f64 {
        flops / self.sampling
    }
}

/// Measures the rates of a shape.
pub(super) fn measure<T: Real>(queue: &Queue, config: &Config, lengths: &Lengths) -> Speed {
    let mut small = config.clone();
    small.num_hidden_layers = config.num_hidden_layers.min(LAYERS);
    small.layer_types.truncate(small.num_hidden_layers);
    small.hidden_size = config.hidden_size.min(HIDDEN);
    small.intermediate_size = config.intermediate_size.min(INTERMEDIATE);
    small.head_dim = config.head_dim.min(HEAD);
    if config.num_attention_heads > HEADS {
        // As many query heads share keys and values as in the model.
        let sharing = (config.num_attention_heads / config.num_key_value_heads).min(HEADS);
        small.num_key_value_heads = (HEADS / sharing).max(1);
        small.num_attention_heads = small.num_key_value_heads * sharing;
    }
    small.vocab_size = config.vocab_size.min((EMBEDDING / small.hidden_size).max(1024));
    small.eos_token_id = Vec::new();
    small.bos_token_id = None;
    small.pad_token_id = None;
    small.validate(Path::new("probe")).expect("a smaller model of a valid shape");
    let longest = small.max_position_embeddings.min(TOKENS);
    let prompt = (lengths.prompt as usize).clamp(1, (longest - 1).max(1));
    let length = (lengths.prompt.max(lengths.document) as usize).clamp(2, longest.max(2));
    Speed { training: training::<T>(queue, &small, length), sampling: sampling::<T>(queue, &small, prompt) }
}

/// The best rate of a few tries, in operations per second; `work` returns its operations.
fn best(mut work: impl FnMut() -> f64) -> f64 {
    let mut rate = 0.0f64;
    for _ in 0..TRIES {
        let began = Instant::now();
        let flops = work();
        rate = rate.max(flops / began.elapsed().as_secs_f64());
    }
    rate
}

fn training<T: Real>(queue: &Queue, config: &Config, length: usize) -> f64 {
    let master = Arena::random(queue.device(), config, Key::new(0).bits(0));
    let mut learner = Learner::<T>::new(queue, master, Hyperparameters::default(), Keep::Everything);
    let mut batch = Batch::new();
    for _ in 0..TOKENS.div_ceil(length) {
        batch.push(&tokens(config, length), None);
    }
    let mut weights = vec![1.0; batch.len()];
    batch.segments().iter().for_each(|segment| weights[segment.start] = 0.0);
    best(|| {
        learner.accumulate(queue, &batch, &Signals::cross_entropy(weights.clone()));
        let report = learner.update(queue, 0.0);
        config.training_flops(None, report.tokens, report.targets, report.attention_pairs)
    })
}

fn sampling<T: Real>(queue: &Queue, config: &Config, prompt: usize) -> f64 {
    let new = NEW_TOKENS.min(config.max_position_embeddings - prompt);
    let master = Arena::random(queue.device(), config, Key::new(0).bits(0));
    let mut model = Model::<T>::new(queue, &master, Role::Inference);
    model.reserve_context(queue, prompt + new);
    best(|| {
        let mut scheduler = Scheduler::new(queue, config, Limits::for_sequences(SEQUENCES, prompt + new));
        let requests = (0..SEQUENCES / 4).map(|index| Request {
            prompt: tokens(config, prompt),
            samples: 4,
            sampling: plain_sampling(1.0),
            max_new_tokens: new,
            stop_tokens: Vec::new(),
            key: Key::new(0).number(index as u64),
            top_logprobs: 0,
        });
        generate(queue, &model, &mut scheduler, requests.collect(), &mut |_, _, _| Flow::Continue);
        sampling_flops(config, SEQUENCES / 4, 4, prompt as f64, new as f64)
    })
}

fn tokens(config: &Config, count: usize) -> Vec<u32> {
    let mut draws = Key::new(1).stream();
    (0..count).map(|_| draws.below(config.vocab_size as u64) as u32).collect()
}
