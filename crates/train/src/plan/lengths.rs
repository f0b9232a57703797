//! How long a task's texts are, in tokens.

/// Mean lengths in tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Lengths {
    /// A document of the corpus; 0 where there is none.
    pub document: f64,
    /// A prompt.
    pub prompt: f64,
    /// What an expert writes, the end token included; none where the task has no demonstrations.
    pub demonstration: Option<f64>,
    /// Seconds that the tokenizer stage will take; 0 where there is none.
    pub tokenizer_seconds: f64,
}

impl Lengths {
    /// A completion that may have `max_new_tokens`.
    pub fn completion(&self, max_new_tokens: usize) -> f64 {
        self.demonstration.unwrap_or(f64::INFINITY).min(max_new_tokens as f64)
    }
}
