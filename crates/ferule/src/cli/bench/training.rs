//! The training step: forward, head, backward, clipping and AdamW, repacking.

use kernels::{Buffer, Queue, Real, Scratch};
use lm::backward::{BackwardBuffers, backward};
use lm::config::Part;
use lm::forward::forward;
use lm::head::{self, HeadBuffers, Targets};
use lm::optimizer::{Hyperparameters, Optimizer};
use lm::rng::Key;
use lm::{Activations, Arena, Batch, Config, Keep, Model, Role};
use serde::Serialize;

use super::{median, seconds};
use crate::cli::machine;

/// Sequences and tokens in each, of a step.
const SEQUENCES: usize = 8;
const TOKENS: usize = 256;

/// The training step's speed.
#[derive(Serialize)]
pub struct Row {
    pub dtype: &'static str,
    pub sequences: usize,
    pub tokens: usize,
    pub tokens_per_s: f64,
    /// Share of the peak, recomputation not counted.
    pub peak_fraction: f64,
    /// The process's resident memory at its highest; none where the system does not tell.
    pub peak_bytes: Option<u64>,
    /// The sum of weights, gradients, moments, packed weights, activations and working memory.
    pub buffer_bytes: usize,
    pub seconds_per_step: f64,
    pub loss: f64,
}

/// Everything that a step needs.
struct Step<T: Real> {
    master: Arena,
    gradients: Arena,
    optimizer: Optimizer,
    model: Model<T>,
    batch: Batch,
    targets: Targets,
    activations: Activations<T>,
    buffers: BackwardBuffers<T>,
    head: HeadBuffers<T>,
    d_hidden: Buffer<f32>,
    scratch: Scratch,
}

/// Times `rounds` steps after one that is not counted. `peak_gflops`: of this dtype, on the same queue.
pub fn measure<T: Real>(queue: &Queue, master: Arena, peak_gflops: f64, rounds: usize) -> Row {
    machine::forget_peak();
    let config = master.config().clone();
    let mut step = Step::<T>::new(queue, master);
    let mut loss = step.run(queue);
    let mut times = Vec::new();
    for _ in 0..rounds {
        times.push(seconds(|| loss = step.run(queue)));
    }
    let (time, tokens) = (median(times), step.batch.len());
    Row {
        dtype: T::DTYPE.name(),
        sequences: SEQUENCES,
        tokens: tokens / SEQUENCES,
        tokens_per_s: tokens as f64 / time,
        peak_fraction: flops(&config, tokens / SEQUENCES) / time / 1e9 / peak_gflops,
        peak_bytes: machine::peak_resident_bytes(),
        buffer_bytes: step.size_bytes(),
        seconds_per_step: time,
        loss,
    }
}

/// Floating-point operations of a step: 6 for each matrix parameter and token, and causal attention.
fn flops(config: &Config, tokens: usize) -> f64 {
    let in_products = |part: Part| part.is_matrix() && (part != Part::Embedding || config.tie_word_embeddings);
    let parameters: usize = config.tensors().iter().filter(|spec| in_products(spec.part)).map(|spec| spec.len()).sum();
    let products = 6.0 * parameters as f64 * (SEQUENCES * tokens) as f64;
    // Scores and weighted values, two products each, half of them masked; backward costs twice as much.
    let attention = 3.0 * 2.0 * (tokens * tokens * config.query_size()) as f64;
    products + attention * (SEQUENCES * config.num_hidden_layers) as f64
}

impl<T: Real> Step<T> {
    fn new(queue: &Queue, master: Arena) -> Self {
        let (device, config) = (queue.device(), master.config().clone());
        let tokens = TOKENS.min(config.max_position_embeddings);
        let mut batch = Batch::new();
        for sequence in 0..SEQUENCES {
            let mut draws = Key::new(0).word("bench").number(sequence as u64).stream();
            let ids: Vec<u32> = (0..tokens).map(|_| (draws.bits() % config.vocab_size as u64) as u32).collect();
            batch.push(&ids, None);
        }
        Self {
            gradients: Arena::zeros(device, &config),
            optimizer: Optimizer::new(device, master.values().len(), Hyperparameters::default()),
            model: Model::new(queue, &master, Role::Training),
            targets: Targets::of(&batch, |_| true),
            activations: Activations::new(device, &config, batch.len(), Keep::Everything),
            buffers: BackwardBuffers::new(device, &config, batch.len()),
            head: HeadBuffers::new(device, &config),
            d_hidden: Buffer::zeros(device, batch.len() * config.hidden_size),
            scratch: Scratch::new(device),
            batch,
            master,
        }
    }

    /// One step; returns the mean loss before it.
    fn run(&mut self, queue: &Queue) -> f64 {
        let hidden_size = self.master.config().hidden_size;
        self.gradients.values_mut().host_mut().fill(0.0);
        self.d_hidden.host_mut().fill(0.0);
        forward(queue, &self.model, &self.batch, &mut self.activations, &mut self.scratch);
        let share = -1.0 / self.targets.len() as f32;
        let mut d_weights = self.gradients.weights_mut();
        let d_head = match &mut d_weights.head {
            Some(head) => head.reborrow(),
            None => d_weights.embedding.reborrow(),
        };
        let rows = head::backward(
            queue,
            &self.model,
            self.activations.hidden(self.model.config()),
            &self.targets,
            1.0,
            |_, _, _| share,
            None,
            self.d_hidden.matrix_mut(self.batch.len(), hidden_size),
            d_head,
            &mut self.head,
            &mut self.scratch,
        );
        backward(
            queue,
            &self.model,
            &self.batch,
            &mut self.activations,
            self.d_hidden.matrix(self.batch.len(), hidden_size),
            &[],
            &mut d_weights,
            &mut self.buffers,
            &mut self.scratch,
        );
        self.optimizer.step(queue, &mut self.master, &self.gradients, 1e-3);
        self.model.update(queue, &self.master);
        -rows.logprob.iter().map(|&x| f64::from(x)).sum::<f64>() / rows.logprob.len() as f64
    }

    fn size_bytes(&self) -> usize {
        let arenas = self.master.values().size_bytes() + self.gradients.values().size_bytes();
        let moments = self.optimizer.first.size_bytes() + self.optimizer.second.size_bytes();
        let working = self.buffers.size_bytes() + self.head.size_bytes() + self.scratch.size_bytes();
        arenas
            + moments
            + self.model.size_bytes()
            + self.activations.size_bytes()
            + working
            + self.d_hidden.size_bytes()
    }
}
