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

use kernels::{Queue, Real};
use lm::head::Targets;
use lm::{Arena, Batch};

use crate::error::TrainError;
use local::LocalTeacher;

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

/// What [`Teacher::top_k`] returns about each target.
#[derive(Clone, Copy, Debug)]
pub struct TopKRequest {
    /// How many of the most likely tokens.
    pub k: usize,
    /// Divides the logits behind their log-probabilities.
    pub temperature: f32,
    /// Also returns the log-probability of the target itself, at this temperature; needed if another model sampled the target.
    pub target_temperature: Option<f32>,
}

/// A teacher's most likely tokens. `R` is the number of targets.
#[derive(Clone, Debug)]
pub struct TopK {
    /// Tokens per target: as many as requested, or the whole vocabulary if that is smaller.
    pub k: usize,
    /// `[R, k]` token ids at each target, most likely first.
    pub ids: Vec<u32>,
    /// `[R, k]` their log-probabilities, in nats.
    pub logprobs: Vec<f32>,
    /// `[R]` log-probabilities of the targets themselves, in nats, if requested.
    pub target_logprobs: Option<Vec<f32>>,
}

/// Opens a model of the recipe as a teacher. All models are local today.
///
/// # Errors
/// The teacher cannot be reached.
pub fn open<T: Real>(queue: &Queue, weights: &Arena) -> Result<Box<dyn Teacher<T>>, TrainError> {
    Ok(Box::new(LocalTeacher::new(queue, weights)))
}
