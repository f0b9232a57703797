//! A model that is only read: a teacher, or the reference of a policy. Its activations are those of forward alone.

use kernels::{Queue, Real, Scratch};
use lm::forward::forward;
use lm::head::{self, HeadBuffers, Targets};
use lm::{Activations, Arena, Batch, Keep, Model, Role};

use super::{Questions, Teacher, TopK};
use crate::error::TrainError;

/// A model with room for its forward.
pub struct LocalTeacher<T: Real> {
    /// Its weights.
    pub model: Model<T>,
    keep: Keep,
    activations: Activations<T>,
    head: HeadBuffers<T>,
    scratch: Scratch,
}

impl<T: Real> LocalTeacher<T> {
    /// A teacher of whom only the last rows are read: distributions and log-probabilities.
    pub fn new(queue: &Queue, master: &Arena) -> Self {
        Self::keeping(queue, master, Keep::Nothing)
    }

    /// A teacher whose residual stream can be read at every layer; takes one `[N, C]` a layer more.
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

    /// Runs the model over a batch; its activations serve as a soft or a hidden signal.
    pub fn read(&mut self, queue: &Queue, batch: &Batch) -> (&Model<T>, &Activations<T>) {
        self.model.reserve_context(queue, batch.context_len());
        if self.activations.capacity() < batch.len() {
            self.activations = Activations::new(queue.device(), self.model.config(), batch.len(), self.keep);
        }
        forward(queue, &self.model, batch, &mut self.activations, &mut self.scratch);
        (&self.model, &self.activations)
    }

    /// Log-probabilities of some tokens of a batch, `[R]` in the order of `targets`, in nats.
    pub fn logprobs(&mut self, queue: &Queue, batch: &Batch, targets: &Targets, temperature: f32) -> Vec<f32> {
        self.read(queue, batch);
        self.chosen(queue, targets, temperature)
    }

    /// As [`Self::logprobs`], of the batch read last.
    fn chosen(&mut self, queue: &Queue, targets: &Targets, temperature: f32) -> Vec<f32> {
        let hidden = self.activations.hidden(self.model.config());
        head::statistics(queue, &self.model, hidden, targets, temperature, &mut self.head).logprob
    }
}

impl<T: Real> Teacher<T> for LocalTeacher<T> {
    fn logprobs(
        &mut self,
        queue: &Queue,
        batch: &Batch,
        targets: &Targets,
        temperature: f32,
    ) -> Result<Vec<f32>, TrainError> {
        Ok(LocalTeacher::logprobs(self, queue, batch, targets, temperature))
    }

    fn top_k(
        &mut self,
        queue: &Queue,
        batch: &Batch,
        targets: &Targets,
        questions: Questions,
    ) -> Result<TopK, TrainError> {
        self.read(queue, batch);
        let chosen = questions.chosen_at.map(|temperature| self.chosen(queue, targets, temperature));
        let hidden = self.activations.hidden(self.model.config());
        let (k, temperature) = (questions.k.min(self.model.config().vocab_size), questions.temperature);
        let (ids, logprobs) = head::top_k(queue, &self.model, hidden, targets, temperature, k, &mut self.head);
        Ok(TopK { k, ids, logprobs, chosen })
    }

    fn flops(&self, batch: &Batch, targets: usize) -> f64 {
        self.model.config().forward_flops(batch.len(), targets, batch.attention_pairs())
    }

    fn local(&mut self) -> Option<&mut LocalTeacher<T>> {
        Some(self)
    }
}
