//! Teachers: models that score tokens which another model sampled or an expert wrote.
//!
//! A teacher gives log-probabilities of given tokens and the most likely tokens at each position.
//!
//! * [`local`]: a second model in this process. Only a local teacher gives whole distributions and hidden states. GRPO's reference model
//!   is one too.
//! * [`artefact`]: a teacher's labels of a data set, stored on disk, so that a student learns from them without the teacher's weights.
//!
//! A teacher never learns, never samples, and knows no loss. To add one, implement [`Teacher`] in a file of this folder and open it in
//! [`open`].
//!
//! Read next: [`local`], then [`crate::stages::distill`], which learns from both.

pub mod artefact;
pub mod local;
pub mod top_k;

use kernels::{Queue, Real};
use lm::head::Targets;
use lm::{Arena, Batch};

use crate::error::TrainError;
use local::LocalTeacher;
pub use top_k::{TopK, TopKRequest};

/// A teacher of any kind. Log-probabilities are in nats; `R` is the number of targets.
pub trait Teacher<T: Real> {
    /// Log-probabilities of the targets of a batch.
    ///
    /// # Shapes and units
    /// * `temperature`: divides the logits.
    /// * returns `[R]`, in nats, in the order of `targets`.
    ///
    /// # Errors
    /// The teacher cannot be reached. A local one always can.
    fn logprobs(
        &mut self,
        queue: &Queue,
        batch: &Batch,
        targets: &Targets,
        temperature: f32,
    ) -> Result<Vec<f32>, TrainError>;

    /// The most likely tokens at each target of a batch, and the log-probabilities of the targets themselves if requested.
    ///
    /// # Errors
    /// As [`Teacher::logprobs`].
    fn top_k(
        &mut self,
        queue: &Queue,
        batch: &Batch,
        targets: &Targets,
        request: TopKRequest,
    ) -> Result<TopK, TrainError>;

    /// Floating-point operations of one forward pass over a batch with `targets` targets; 0 for a teacher outside this process.
    fn flops(&self, batch: &Batch, targets: usize) -> f64;

    /// The teacher as a model in this process, which gives whole distributions and hidden states; none for other teachers.
    fn local(&mut self) -> Option<&mut LocalTeacher<T>> {
        None
    }
}

/// Opens a model of the recipe as a teacher. All models are local today.
///
/// # Errors
/// The teacher cannot be reached.
pub fn open<T: Real>(queue: &Queue, weights: &Arena) -> Result<Box<dyn Teacher<T>>, TrainError> {
    Ok(Box::new(LocalTeacher::new(queue, weights)))
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
        request: TopKRequest,
    ) -> Result<TopK, TrainError> {
        Ok(LocalTeacher::top_k(self, queue, batch, targets, request))
    }

    fn flops(&self, batch: &Batch, targets: usize) -> f64 {
        self.model.config().forward_flops(batch.len(), targets, batch.attention_pairs())
    }

    fn local(&mut self) -> Option<&mut LocalTeacher<T>> {
        Some(self)
    }
}
