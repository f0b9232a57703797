//! A row of a rollout file, as a plain struct.
//!
//! Read next: [`super`], which writes and reads it.

use crate::ledger::rows::Verdict;

/// One completion of one case; stage and step are the file's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rollout {
    /// The case.
    pub case_id: String,
    /// Which completion of the case's group, from 0.
    pub sample: u32,
    /// The prompt as rendered.
    pub prompt: String,
    /// The known answer, if the case has one, so that the file can be graded again by itself.
    pub answer: Option<String>,
    /// The completion, decoded.
    pub completion: String,
    /// The completion's token ids.
    pub tokens: Vec<u32>,
    /// The sampler's log-probability of each token, in nats; as long as `tokens`.
    pub logprobs: Vec<f32>,
    /// Whether the environment, not the model, wrote each token of an episode; as long as `tokens`. None if the model
    /// wrote all.
    pub given: Option<Vec<bool>>,
    /// A teacher's log-probability of each token, in nats, if a teacher scored them; as long as `tokens`.
    pub logprobs_teacher: Option<Vec<f32>>,
    /// A teacher's soft labels, where some were kept; as long as `tokens`.
    pub soft: Option<SoftLabels>,
    /// The rule set's reward; none if it gave none.
    pub reward: Option<f64>,
    /// The advantage that was trained with; none if no policy was trained.
    pub advantage: Option<f32>,
    /// Whether it ended by its end token and was not cut short.
    pub finished: bool,
    /// Every rule's verdict.
    pub verdicts: Vec<Verdict>,
}

/// Soft labels of one completion.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SoftLabels {
    /// The temperature that divided the teacher's logits.
    pub temperature: f32,
    /// Tokens per row, `k`.
    pub k: u32,
    /// `[tokens, k]` ids, most likely first.
    pub ids: Vec<u32>,
    /// `[tokens, k]` log-probabilities, in nats.
    pub logprobs: Vec<f32>,
    /// `[tokens]` probability of all other tokens together.
    pub tail: Vec<f32>,
}
