//! What is kept of a defendant.

use serde::Serialize;

use super::sentence::Sentence;

/// A defendant with what he was convicted of.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Defendant {
    /// As published.
    pub name: String,
    /// Each charge with its own sentence.
    pub charges: Vec<Charged>,
    /// The sentence to be served.
    #[serde(flatten)]
    pub sentence: Sentence,
}

/// A charge with its sentence.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Charged {
    /// As written, without 罪.
    pub charge: String,
    /// The sentence for it.
    #[serde(flatten)]
    pub sentence: Sentence,
}
