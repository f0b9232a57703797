//! Assigns content to a part of a task: a function of the content alone.
//!
//! No seed is used, so no seed can move a held-out case into training. The BLAKE3 of the content gives a number in
//! 0..100, and each part has a range of these numbers.

use crate::case::Split;

/// The part that a piece of content belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Only the pretraining corpus may hold it.
    Corpus,
    /// Cases of one split, and nothing else.
    Split(Split),
}

/// A number in 0..100 that depends on the content.
pub fn hundredth(content: &str) -> u64 {
    let hash = blake3::hash(content.as_bytes());
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hash.as_bytes()[8..16]);
    u64::from_le_bytes(bytes) % 100
}

/// For generators, whose corpus and splits share one space: 50 of 100 for the corpus, 25 for training, 15 held out, 10
/// for validation.
pub fn generated(content: &str) -> Part {
    match hundredth(content) {
        0..50 => Part::Corpus,
        50..75 => Part::Split(Split::Train),
        75..90 => Part::Split(Split::Heldout),
        _ => Part::Split(Split::Validation),
    }
}

/// For files of cases: 70 of 100 for training, 20 held out, 10 for validation.
pub fn filed(content: &str) -> Split {
    match hundredth(content) {
        0..70 => Split::Train,
        70..90 => Split::Heldout,
        _ => Split::Validation,
    }
}

/// A case's id: the first 16 hexadecimal digits of its content's BLAKE3.
pub fn id(content: &str) -> String {
    blake3::hash(content.as_bytes()).to_hex()[..16].to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_as_written_and_ids_stay() {
        let count = |split| (0..10_000).filter(|i| filed(&format!("case {i}")) == split).count();
        for (split, expected) in [(Split::Train, 7000), (Split::Heldout, 2000), (Split::Validation, 1000)] {
            assert!(count(split).abs_diff(expected) < 200, "{split:?}: {}", count(split));
        }
        let corpus = (0..10_000).filter(|i| generated(&format!("case {i}")) == Part::Corpus).count();
        assert!(corpus.abs_diff(5000) < 200, "{corpus}");
        assert_eq!(id(""), "af1349b9f5f9a1a6");
    }
}
