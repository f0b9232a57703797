//! Mean lengths of a task's texts, in tokens.

/// Mean lengths in tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Lengths {
    /// A document of the corpus; 0 if the task has no corpus.
    pub document: f64,
    /// A prompt.
    pub prompt: f64,
    /// A demonstration, the end token included; none if the task has no demonstrations.
    pub demonstration: Option<f64>,
    /// Characters of a prompt for each of its tokens, by which the lengths of other texts are judged.
    pub characters_per_token: f64,
    /// Seconds that the tokenizer stage will take; 0 if the recipe has none.
    pub tokenizer_seconds: f64,
}

impl Lengths {
    /// The assumed length of a text from another file, in tokens.
    pub fn of_text(&self, text: &str) -> f64 {
        text.chars().count() as f64 / self.characters_per_token.max(f64::MIN_POSITIVE)
    }

    /// The assumed length of a completion, in tokens: that of a demonstration, but at most `max_new_tokens`.
    pub fn completion(&self, max_new_tokens: usize) -> f64 {
        self.demonstration.unwrap_or(f64::INFINITY).min(max_new_tokens as f64)
    }
}
