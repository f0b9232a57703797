//! A teacher answers questions about tokens that it did not choose: how likely it finds them, and what it finds likelier.
//!
//! * [`local`]: a second model in this process. It alone gives whole distributions and hidden states. GRPO's reference model is one too.
//! * [`artefact`]: what a teacher answered about a data set, kept on disk, so that learning from it needs no weights.
//!
//! A teacher never learns, never samples, and knows no loss. To add one: implement [`Teacher`] in a file of this folder, and open it in
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
    /// Log-probabilities of the targets of a batch, `[R]` in their order.
    ///
    /// * `temperature`: divides the logits.
    ///
    /// # Errors
    /// A teacher that does not answer. A local one always does.
    fn logprobs(
        &mut self,
        queue: &Queue,
        batch: &Batch,
        targets: &Targets,
        temperature: f32,
    ) -> Result<Vec<f32>, TrainError>;

    /// The most likely tokens at the targets of a batch, and the targets' own log-probabilities where they are asked for.
    ///
    /// # Errors
    /// As [`Teacher::logprobs`].
    fn top_k(
        &mut self,
        queue: &Queue,
        batch: &Batch,
        targets: &Targets,
        questions: Questions,
    ) -> Result<TopK, TrainError>;

    /// Floating-point operations of one reading of a batch with so many targets; 0 for a teacher elsewhere.
    fn flops(&self, batch: &Batch, targets: usize) -> f64;

    /// The teacher as a model in this process, whose whole distributions and hidden states can be read; none for others.
    fn local(&mut self) -> Option<&mut LocalTeacher<T>> {
        None
    }
}

/// What to ask of a teacher about each target.
#[derive(Clone, Copy, Debug)]
pub struct Questions {
    /// Its most likely tokens.
    pub k: usize,
    /// Divides its logits for them.
    pub temperature: f32,
    /// Also its log-probability of the target itself, at this temperature: where another model chose it.
    pub chosen_at: Option<f32>,
}

/// A teacher's answer to [`Questions`].
#[derive(Clone, Debug)]
pub struct TopK {
    /// Tokens at each target: as many as were asked for, or the whole vocabulary where that is smaller.
    pub k: usize,
    /// Tokens at each target, most likely first; `[R, k]`.
    pub ids: Vec<u32>,
    /// Their log-probabilities, `[R, k]`.
    pub logprobs: Vec<f32>,
    /// The targets' own log-probabilities, `[R]`, where they were asked for.
    pub chosen: Option<Vec<f32>>,
}

/// The teacher that a model of the recipe is. Today every model is local.
///
/// # Errors
/// A teacher that cannot be reached.
pub fn open<T: Real>(queue: &Queue, weights: &Arena) -> Result<Box<dyn Teacher<T>>, TrainError> {
    Ok(Box::new(LocalTeacher::new(queue, weights)))
}
