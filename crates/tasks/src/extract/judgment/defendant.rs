//! The data that are kept of a defendant.

use serde::Serialize;

use super::sentence::Sentence;

/// A defendant with the charges of the conviction.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Defendant {
    /// The name as published.
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
    /// The charge as written, without 罪.
    pub charge: String,
    /// The sentence for it.
    #[serde(flatten)]
    pub sentence: Sentence,
}
