//! Measures the training step of [`Learner`], which every stage uses.

use kernels::rng::Key;
use kernels::{Queue, Real};
use lm::optimizer::Hyperparameters;
use lm::table::{TensorRole, TensorSpec};
use lm::{Arena, Batch, Config, Keep};
use serde::Serialize;
use train::step::{Learner, Signals};

use super::timing::{median, seconds};
use crate::cli::machine;

/// Sequences of a step, and tokens of each.
const SEQUENCES: usize = 8;
const TOKENS: usize = 256;
const LEARNING_RATE: f32 = 1e-3;

/// The training step's speed.
#[derive(Serialize)]
pub struct Row {
    pub dtype: &'static str,
    pub sequences: usize,
    pub tokens: usize,
    pub tokens_per_s: f64,
    /// Share of the peak, without recomputation.
    pub peak_fraction: f64,
    /// The process's peak resident memory; none if the system does not report it.
    pub peak_bytes: Option<u64>,
    /// The sum of weights, gradients, moments, packed weights, activations and working memory.
    pub buffer_bytes: usize,
    pub seconds_per_step: f64,
    pub loss: f64,
}

/// Times `rounds` steps after one that is not counted. `peak_gflops` is the peak of this dtype on the same queue.
pub fn measure<T: Real>(queue: &Queue, master: Arena, peak_gflops: f64, rounds: usize) -> Row {
    machine::forget_peak();
    let config = master.config().clone();
    let batch = random_batch(&config);
    let share = 1.0 / (batch.len() - SEQUENCES) as f32;
    let mut learner = Learner::<T>::new(queue, master, Hyperparameters::default(), Keep::Everything);
    let mut loss = 0.0;
    let mut step = || {
        learner.accumulate(queue, &batch, &Signals::cross_entropy(vec![share; batch.len()]));
        loss = learner.update(queue, LEARNING_RATE).loss;
    };
    step();
    let times = (0..rounds).map(|_| seconds(&mut step)).collect();
    let (time, tokens) = (median(times), batch.len());
    Row {
        dtype: T::DTYPE.name(),
        sequences: SEQUENCES,
        tokens: tokens / SEQUENCES,
        tokens_per_s: tokens as f64 / time,
        peak_fraction: flops(&config, tokens / SEQUENCES) / time / 1e9 / peak_gflops,
        peak_bytes: machine::peak_resident_bytes(),
        buffer_bytes: learner.size_bytes(),
        seconds_per_step: time,
        loss,
    }
}

/// Floating-point operations of a step: 6 for each matrix parameter and token, and causal attention.
fn flops(config: &Config, tokens: usize) -> f64 {
    let in_products =
        |spec: &&TensorSpec| spec.is_matrix() && (spec.role != TensorRole::Embedding || config.tie_word_embeddings);
    let parameters: usize = config.tensors().iter().filter(in_products).map(TensorSpec::len).sum();
    let products = 6.0 * parameters as f64 * (SEQUENCES * tokens) as f64;
    // Two products, for scores and weighted values, half of each masked; backward costs twice as much.
    let attention = 3.0 * 2.0 * (tokens * tokens * config.query_size()) as f64;
    products + attention * (SEQUENCES * config.num_hidden_layers) as f64
}

/// Sequences of random tokens, each a segment of its own.
fn random_batch(config: &Config) -> Batch {
    let tokens = TOKENS.min(config.max_position_embeddings);
    let mut batch = Batch::new();
    for sequence in 0..SEQUENCES {
        let mut draws = Key::new(0).word("bench").number(sequence as u64).stream();
        let ids: Vec<u32> = (0..tokens).map(|_| (draws.bits() % config.vocab_size as u64) as u32).collect();
        batch.push(&ids, None);
    }
    batch
}
