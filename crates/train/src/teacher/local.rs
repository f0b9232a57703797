//! A model in this process that only runs forward: a teacher, or the reference of a policy.

use kernels::{Queue, Real, Scratch};
use lm::forward::forward;
use lm::head::{self, HeadBuffers, Targets};
use lm::{Activations, Arena, Batch, Keep, Model, Role};

use super::top_k::{TopK, TopKRequest};

/// A model with the buffers of its forward pass.
pub struct LocalTeacher<T: Real> {
    /// Its weights.
    pub model: Model<T>,
    keep: Keep,
    activations: Activations<T>,
    head: HeadBuffers<T>,
    scratch: Scratch,
}

impl<T: Real> LocalTeacher<T> {
    /// A teacher for distributions and log-probabilities. It keeps the last layer's hidden states only.
    pub fn new(queue: &Queue, master: &Arena) -> Self {
        Self::keeping(queue, master, Keep::Nothing)
    }

    /// A teacher that keeps the residual stream of every layer, which takes one more `[N, C]` per layer.
    pub fn with_layers(queue: &Queue, master: &Arena) -> Self {
        Self::keeping(queue, master, Keep::Residuals)
    }

    fn keeping(queue: &Queue, master: &Arena, keep: Keep) -> Self {
        let (device, config) = (queue.device(), master.config());
        Self {
            model: Model::new(queue, master, Role::Inference),
            keep,
            activations: Activations::new(device, config, 0, keep),
            head: HeadBuffers::new(device, config),
            scratch: Scratch::new(device),
        }
    }

    /// Runs the model over a batch. The activations serve as a soft or a hidden signal.
    pub fn forward(&mut self, queue: &Queue, batch: &Batch) -> (&Model<T>, &Activations<T>) {
        self.model.reserve_context(queue, batch.context_len());
        if self.activations.capacity() < batch.len() {
            self.activations = Activations::new(queue.device(), self.model.config(), batch.len(), self.keep);
        }
        forward(queue, &self.model, batch, &mut self.activations, &mut self.scratch);
        (&self.model, &self.activations)
    }

    /// Log-probabilities of the targets of a batch.
    ///
    /// # Shapes and units
    /// * `temperature`: divides the logits.
    /// * returns `[R]`, in nats, in the order of `targets`.
    pub fn logprobs(&mut self, queue: &Queue, batch: &Batch, targets: &Targets, temperature: f32) -> Vec<f32> {
        self.forward(queue, batch);
        self.target_logprobs(queue, targets, temperature)
    }

    /// As [`Self::logprobs`], for the batch of the last forward pass.
    fn target_logprobs(&mut self, queue: &Queue, targets: &Targets, temperature: f32) -> Vec<f32> {
        let hidden = self.activations.hidden(self.model.config());
        head::statistics(queue, &self.model, hidden, targets, temperature, &mut self.head).logprob
    }

    /// The most likely tokens at the targets of a batch and, if requested, the log-probabilities of the targets
    /// themselves.
    pub fn top_k(&mut self, queue: &Queue, batch: &Batch, targets: &Targets, request: TopKRequest) -> TopK {
        self.forward(queue, batch);
        let target_logprobs =
            request.target_temperature.map(|temperature| self.target_logprobs(queue, targets, temperature));
        let hidden = self.activations.hidden(self.model.config());
        let (k, temperature) = (request.k.min(self.model.config().vocab_size), request.temperature);
        let (ids, logprobs) = head::top_k(queue, &self.model, hidden, targets, temperature, k, &mut self.head);
        TopK { k, ids, logprobs, target_logprobs }
    }
}
