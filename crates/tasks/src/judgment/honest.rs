//! The caveats to be shown wherever this task's figures or outputs are shown.

/// One paragraph.
pub const HONEST_WORDS: &str = "The built-in cases are synthetic: they were made from a table of tiers and factors and say \
nothing about real courts. The model estimates what a court decided, not what is lawful or just. The range that counts as \
right is a convention of this project, not the law's. This is not legal advice, and it must not decide or recommend a \
sentence: artificial intelligence does not take the judge's place (法发〔2022〕33号). The reasoning that is printed need not be \
what caused the answer.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_is_made() {
        for point in ["synthetic", "estimates", "not legal advice", "must not decide", "33号", "need not be"] {
            assert!(HONEST_WORDS.contains(point), "{point}");
        }
    }
}
