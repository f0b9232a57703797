//! The question for a teacher's most likely tokens, and its answer.

/// What [`super::Teacher::top_k`] returns about each target.
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
